// The wallets page: lists, finds and shows wallets, and opens, deposits, withdraws and transfers.

import { call, setApiKey } from "/assets/api.js";
import {
  $, bindButton, bindForm, bindMessage, clearProblems, element, focusAfter, formatAmount, runReportingErrors,
  withoutEmpty,
} from "/assets/page.js";
import { bindHistory } from "/assets/wallet-history.js";
import { bindHolds } from "/assets/wallet-holds.js";
import { bindStatement } from "/assets/wallet-statement.js";

/** Number of wallets on a page of the list. */
const PAGE = 100;
/** Matches windows that are wide enough to show open forms. On a phone, open forms would hide the history. */
const WIDE = matchMedia("(min-width: 54rem)");

/** The wallet on display, and the URL of Grafana. */
const shown = { id: null, currency: "", grafana: null };
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
    element("span", `${formatAmount(wallet.balance)} ${wallet.currency}`, "number sum"),
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

/** The owner whose wallets are listed; empty for all wallets. */
let owner = "";

async function loadPage(path, isFirst) {
  const { body, next } = await call("GET", path);
  if (isFirst) $("wallets").replaceChildren();
  $("wallets").append(...body.map(walletItem));
  moreWallets = next;
  $("more-wallets").hidden = !next;
  const count = $("wallets").children.length;
  if (count > 0) $("found").textContent = owner ? `${count === 1 ? "1 wallet" : `${count} wallets`} of ${owner}` : "";
  else $("found").textContent = owner ? `No wallet of ${owner} is found.` : "No wallets yet. Open one below.";
  markSelected();
}

function loadWallets() {
  const query = new URLSearchParams({ limit: PAGE, ...withoutEmpty({ owner }) });
  return loadPage(`/wallet?${query}`, true);
}

/** Loads the currencies and the URL of Grafana. */
async function loadInfo() {
  const { body: info } = await call("GET", "/wallet/info");
  shown.grafana = info.grafana_url;
  const select = $("open").elements.currency;
  const { value } = select;
  select.replaceChildren(...info.currencies.map(({ code }) => element("option", code)));
  for (const option of select.options) option.defaultSelected = option.value === info.default_currency;
  if (value) select.value = value;
}

/** Id of the wallet that was selected last. Late responses about other wallets are ignored. */
let selected = null;

const entries = bindHistory(shown, refresh);
const holds = bindHolds(shown, refresh);
bindStatement(shown);

async function showWallet(id) {
  selected = id;
  const { body: wallet } = await call("GET", `/wallet/${encodeURIComponent(id)}`);
  if (selected !== id) return;
  if (shown.id !== wallet.id) clearProblems($("wallet"));
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
  await Promise.all([entries.load(), holds.load()]);
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

bindForm("search", async (fields) => {
  owner = fields.owner.trim();
  await loadWallets();
}, { resets: false });

bindForm("access", async ({ key }) => {
  setApiKey(key.trim());
  await loadInfo();
  return key.trim() ? "The key is used until this tab is closed." : "No key is used.";
}, {
  refresh: async () => {
    await refresh();
    if (!selected) showLinkedWallet();
  },
});

/** Shows the wallet that the URL names. */
function showLinkedWallet() {
  const id = /^#wallet=(\d+)$/.exec(location.hash)?.[1];
  if (!id) return;
  runReportingErrors(() => focusAfter(async () => {
    await showWallet(id);
    return $("wallet-title");
  }));
}

function openForms() {
  for (const details of document.querySelectorAll(".action")) details.open = WIDE.matches;
}

bindButton($("more-wallets"), () => loadPage(moreWallets, false));
bindMessage();
WIDE.addEventListener("change", openForms);
window.addEventListener("hashchange", showLinkedWallet);
openForms();
runReportingErrors(async () => {
  await loadInfo();
  await loadWallets();
  // If the URL has changed meanwhile, a wallet is already shown. Loading it again would undo the user's actions since.
  if (!selected) showLinkedWallet();
});
