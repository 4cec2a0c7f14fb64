// The wallets page: lists and shows wallets, and opens, deposits, withdraws and transfers.

import { ApiError, call, newIdempotencyKey, setApiKey } from "/assets/api.js";

const $ = (id) => document.getElementById(id);
/** The wallet on display, and the URL of its next page of history. */
const shown = { id: null, currency: "", older: null };
/** URL of the next page of wallets. */
let moreWallets = null;

function element(tag, text, className) {
  const created = document.createElement(tag);
  if (text !== undefined) created.textContent = text;
  if (className) created.className = className;
  return created;
}

/** Formats a decimal with thin spaces between thousands, without changing its digits. */
function formatAmount(decimal) {
  const [whole, rest] = String(decimal).split(".");
  const grouped = whole.replace(/\B(?=(\d{3})+$)/g, "\u202f");
  return rest === undefined ? grouped : `${grouped}.${rest}`;
}

function showMessage(text, bad = false) {
  const line = $("say");
  line.hidden = false;
  line.classList.toggle("bad", bad);
  line.setAttribute("role", bad ? "alert" : "status");
  line.textContent = text;
}

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
const DATE_TIME = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const SIGNS = { in: "+", out: "\u2212" };

function historyRow(entry) {
  const row = element("tr");
  const when = element("time", DATE_TIME.format(new Date(entry.at)));
  when.dateTime = entry.at;
  const cell = element("td");
  cell.append(when);
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

/** Submits a form with `action`. A retry of the same input keeps its idempotency key until the outcome is known. */
function bindForm(id, action) {
  const form = $(id);
  let key = newIdempotencyKey();
  let pending = "";
  form.addEventListener("input", () => {
    for (const input of form.elements) {
      input.removeAttribute("aria-invalid");
      input.removeAttribute("aria-describedby");
    }
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = form.querySelector("button");
    if (button.disabled) return;
    button.disabled = true;
    try {
      const fields = Object.fromEntries(new FormData(form));
      const submitted = JSON.stringify([shown.id, fields]);
      if (submitted !== pending) key = newIdempotencyKey();
      pending = submitted;
      const message = await action(fields, key);
      // Succeeded: the next submission is a new request, even with the same input.
      pending = "";
      form.reset();
      showMessage(message);
      await refresh();
    } catch (error) {
      showError(error, form);
      // After a rejection, the next submission is a new request; after an unknown outcome, it reuses the key.
      if (!error.mayHaveSucceeded) pending = "";
    } finally {
      button.disabled = false;
    }
  });
}

function showError(error, form) {
  if (!(error instanceof ApiError)) {
    showMessage("Unexpected error. Reload the page: a request is never applied twice.", true);
    throw error;
  }
  const details = error.errors.map(({ pointer, detail }) => `${pointer.replace(/^[/?]/, "").replaceAll("_", " ")} ${detail}`);
  showMessage(details.length > 0 ? `${details.join("; ")}.` : `${error.message.replace(/\.$/, "")}.`, true);
  for (const { pointer } of error.errors) {
    const input = form?.elements.namedItem(pointer.slice(1));
    if (input) {
      input.setAttribute("aria-invalid", "true");
      input.setAttribute("aria-describedby", "say");
      input.focus();
    }
  }
}

/** Reloads the list and the wallet on display. */
async function refresh() {
  await loadWallets();
  if (shown.id) await showWallet(shown.id);
}

function withoutEmpty(fields) {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value.trim() !== ""));
}

bindForm("open", async (fields, key) => {
  const { body } = await call("POST", "/wallet", withoutEmpty(fields), key);
  location.hash = `wallet=${body.id}`;
  return `Opened wallet #${body.id} with ${formatAmount(body.balance)} ${body.currency}.`;
});

for (const [action, done] of [["deposit", "Deposited"], ["withdraw", "Withdrawn"]]) {
  bindForm(action, async (fields, key) => {
    const { body } = await call("POST", `/wallet/${action}`, { id: shown.id, ...withoutEmpty(fields) }, key);
    return `${done}. The balance is ${formatAmount(body.balance)} ${body.currency}.`;
  });
}

bindForm("transfer", async (fields, key) => {
  const { body } = await call("POST", "/wallet/transfer", { from: shown.id, ...withoutEmpty(fields) }, key);
  return `Transferred ${formatAmount(body.amount)} ${body.currency} to wallet #${body.to}.`;
});

$("access").addEventListener("submit", (event) => {
  event.preventDefault();
  setApiKey(new FormData(event.target).get("key"));
  event.target.reset();
  runReportingErrors(refresh);
});

function runReportingErrors(task) {
  Promise.resolve().then(task).catch((error) => showError(error));
}

/** Shows the wallet that the URL names. */
function showLinkedWallet() {
  const id = /^#wallet=(\d+)$/.exec(location.hash)?.[1];
  if (!id) return;
  runReportingErrors(async () => {
    await showWallet(id);
    $("wallet-title").focus({ preventScroll: true });
  });
}

for (const [id, next] of [["older", () => loadHistory(shown.older)], ["more-wallets", () => loadWallets(moreWallets)]]) {
  const button = $(id);
  button.addEventListener("click", () => {
    if (button.disabled) return;
    button.disabled = true;
    runReportingErrors(() => next().finally(() => { button.disabled = false; }));
  });
}
window.addEventListener("hashchange", showLinkedWallet);
runReportingErrors(async () => {
  await loadWallets();
  showLinkedWallet();
});
