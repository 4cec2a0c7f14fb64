// The wallets page: lists and shows wallets, and opens, deposits, withdraws and transfers.

import { call, setApiKey } from "/assets/api.js";
import {
  $, bindButton, bindForm, element, focusAfter, formatAmount, runReportingErrors, timeElement, withoutEmpty,
} from "/assets/page.js";

/** The wallet on display, and the URL of its next page of history. */
const shown = { id: null, currency: "", older: null };
/** URL of the next page of wallets. */
let moreWallets = null;

function walletItem(wallet) {
  const item = element("li");
  const button = element("button");
  button.type = "button";
  button.dataset.id = wallet.id;
  button.append(
    element("span", `#${wallet.id}`, "muted small number"),
    element("span", wallet.owner, "owner"),
    element("span", `${formatAmount(wallet.balance)} ${wallet.currency}`, "number"),
  );
  button.addEventListener("click", () => { location.hash = `wallet=${wallet.id}`; });
  item.append(button);
  return item;
}

function markSelected() {
  for (const button of $("wallets").querySelectorAll("button")) {
    button.setAttribute("aria-current", String(button.dataset.id === shown.id));
  }
}

async function loadWallets(path = "/wallet?limit=100") {
  const first = path === "/wallet?limit=100";
  const { body, next } = await call("GET", path);
  const items = body.map(walletItem);
  if (first) $("wallets").replaceChildren(...items);
  else $("wallets").append(...items);
  $("no-wallets").hidden = $("wallets").children.length > 0;
  moreWallets = next;
  $("more-wallets").hidden = !next;
  markSelected();
}

const KINDS = { open: "opened", close: "closed", freeze: "frozen", unfreeze: "unfrozen" };
const SIGNS = { in: "+", out: "\u2212" };

function historyRow(entry) {
  const row = element("tr");
  const cell = element("td");
  cell.append(timeElement(entry.at));
  const moves = entry.direction !== "none";
  const amount = moves ? (SIGNS[entry.direction] ?? "") + formatAmount(entry.amount) : "";
  row.append(
    cell,
    element("td", KINDS[entry.kind] ?? entry.kind),
    element("td", entry.counterparty ? `#${entry.counterparty}` : "", "optional number"),
    element("td", entry.memo ?? "", "optional"),
    element("td", amount, `number ${entry.direction}`),
    element("td", formatAmount(entry.balance), "number"),
  );
  if (entry.trace_id) row.title = `Trace ID: ${entry.trace_id}`;
  return row;
}

async function loadHistory(path) {
  const first = !path;
  const id = shown.id;
  const { body, next } = await call("GET", path ?? `/wallet/${id}/history?limit=25`);
  if (shown.id !== id) return;
  const rows = body.map(historyRow);
  if (first) $("history").replaceChildren(...rows);
  else $("history").append(...rows);
  shown.older = next;
  $("older").hidden = !next;
}

/** The wallet selected last; late responses about another one are ignored. */
let selected = null;

async function showWallet(id) {
  selected = id;
  const { body: wallet } = await call("GET", `/wallet/${encodeURIComponent(id)}`);
  if (selected !== id) return;
  Object.assign(shown, { id: wallet.id, currency: wallet.currency });
  const title = $("wallet-title");
  title.textContent = `${wallet.label ?? wallet.owner} `;
  title.append(element("span", `#${wallet.id}`, "muted number"));
  if (wallet.state !== "open") title.append(" ", element("span", wallet.state, "badge"));
  $("balance").replaceChildren(formatAmount(wallet.balance), " ", element("span", wallet.currency, "unit"));
  $("parts").textContent = Number(wallet.held) === 0
    ? "Fully available."
    : `${formatAmount(wallet.available)} available, ${formatAmount(wallet.held)} on hold.`;
  $("wallet").hidden = false;
  $("nothing").hidden = true;
  markSelected();
  await loadHistory();
}

/** Reloads the list and the wallet that is selected. */
async function refresh() {
  await loadWallets();
  if (selected) await showWallet(selected);
}

function bindWalletForm(id, action) {
  bindForm(id, action, { context: () => shown.id, refresh });
}

bindWalletForm("open", async (fields, key) => {
  const { body } = await call("POST", "/wallet", withoutEmpty(fields), key);
  location.hash = `wallet=${body.id}`;
  return `Opened wallet #${body.id} with ${formatAmount(body.balance)} ${body.currency}.`;
});

for (const [action, done] of [["deposit", "Deposited"], ["withdraw", "Withdrawn"]]) {
  bindWalletForm(action, async (fields, key) => {
    const { body } = await call("POST", `/wallet/${action}`, { id: shown.id, ...withoutEmpty(fields) }, key);
    return `${done}. The balance is ${formatAmount(body.balance)} ${body.currency}.`;
  });
}

bindWalletForm("transfer", async (fields, key) => {
  const { body } = await call("POST", "/wallet/transfer", { from: shown.id, ...withoutEmpty(fields) }, key);
  return `Transferred ${formatAmount(body.amount)} ${body.currency} to wallet #${body.to}.`;
});

$("access").addEventListener("submit", (event) => {
  event.preventDefault();
  setApiKey(new FormData(event.target).get("key"));
  event.target.reset();
  runReportingErrors(refresh);
});

/** Shows the wallet that the URL names. */
function showLinkedWallet() {
  const id = /^#wallet=(\d+)$/.exec(location.hash)?.[1];
  if (!id) return;
  runReportingErrors(() => focusAfter(async () => {
    await showWallet(id);
    return $("wallet-title");
  }, { preventScroll: true }));
}

bindButton($("older"), () => loadHistory(shown.older));
bindButton($("more-wallets"), () => loadWallets(moreWallets));
window.addEventListener("hashchange", showLinkedWallet);
runReportingErrors(async () => {
  await loadWallets();
  showLinkedWallet();
});
