// The page of wallets: look, open, deposit, withdraw, transfer.

import { Refused, call, newKey, useKey } from "/assets/api.js";

const $ = (id) => document.getElementById(id);
const shown = { id: null, currency: "", older: null };
let moreWallets = null;

function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

/** A decimal with thin spaces between thousands, as people read it. The digits are the server's. */
function pretty(decimal) {
  const [whole, rest] = String(decimal).split(".");
  const grouped = whole.replace(/\B(?=(\d{3})+$)/g, "\u202f");
  return rest === undefined ? grouped : `${grouped}.${rest}`;
}

function say(text, bad = false) {
  const line = $("say");
  line.hidden = false;
  line.classList.toggle("bad", bad);
  line.setAttribute("role", bad ? "alert" : "status");
  line.textContent = text;
}

function row(wallet) {
  const item = element("li");
  const button = element("button");
  button.type = "button";
  button.dataset.id = wallet.id;
  button.append(
    element("span", `#${wallet.id}`, "muted small number"),
    element("span", wallet.owner, "who"),
    element("span", `${pretty(wallet.balance)} ${wallet.currency}`, "number"),
  );
  button.addEventListener("click", () => { location.hash = `wallet=${wallet.id}`; });
  item.append(button);
  return item;
}

function mark() {
  for (const button of $("wallets").querySelectorAll("button")) {
    button.setAttribute("aria-current", String(button.dataset.id === shown.id));
  }
}

async function list(path = "/wallet?limit=100") {
  const first = path === "/wallet?limit=100";
  const { body, next } = await call("GET", path);
  const rows = body.map(row);
  if (first) $("wallets").replaceChildren(...rows);
  else $("wallets").append(...rows);
  $("no-wallets").hidden = $("wallets").children.length > 0;
  moreWallets = next;
  $("more-wallets").hidden = !next;
  mark();
}

const KINDS = { open: "opened", close: "closed", freeze: "frozen", unfreeze: "unfrozen" };
const MOMENT = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const SIGNS = { in: "+", out: "\u2212" };

function line(entry) {
  const made = element("tr");
  const when = element("time", MOMENT.format(new Date(entry.at)));
  when.dateTime = entry.at;
  const cell = element("td");
  cell.append(when);
  const moves = entry.direction !== "none";
  const amount = moves ? (SIGNS[entry.direction] ?? "") + pretty(entry.amount) : "";
  made.append(
    cell,
    element("td", KINDS[entry.kind] ?? entry.kind),
    element("td", entry.counterparty ? `#${entry.counterparty}` : "", "optional number"),
    element("td", entry.memo ?? "", "optional"),
    element("td", amount, `number ${entry.direction}`),
    element("td", pretty(entry.balance), "number"),
  );
  if (entry.trace_id) made.title = `trace ${entry.trace_id}`;
  return made;
}

async function history(path) {
  const first = !path;
  const of = shown.id;
  const { body, next } = await call("GET", path ?? `/wallet/${of}/history?limit=25`);
  if (shown.id !== of) return;
  const lines = body.map(line);
  if (first) $("history").replaceChildren(...lines);
  else $("history").append(...lines);
  shown.older = next;
  $("older").hidden = !next;
}

/** The wallet that was chosen last: answers about another come too late. */
let chosen = null;

async function show(id) {
  chosen = id;
  const { body: wallet } = await call("GET", `/wallet/${encodeURIComponent(id)}`);
  if (chosen !== id) return;
  Object.assign(shown, { id: wallet.id, currency: wallet.currency });
  const title = $("wallet-title");
  title.textContent = `${wallet.label ?? wallet.owner} `;
  title.append(element("span", `#${wallet.id}`, "muted number"));
  if (wallet.state !== "open") title.append(" ", element("span", wallet.state, "badge"));
  $("balance").replaceChildren(pretty(wallet.balance), " ", element("span", wallet.currency, "unit"));
  $("parts").textContent = Number(wallet.held) === 0
    ? "All of it can be spent."
    : `${pretty(wallet.available)} can be spent, ${pretty(wallet.held)} is held.`;
  $("wallet").hidden = false;
  $("nothing").hidden = true;
  mark();
  await history();
}

/** One form, one intention: the same key until it is done or refused, or until something else is meant. */
function form(id, act) {
  const made = $(id);
  let key = newKey();
  let meant = "";
  made.addEventListener("input", () => {
    for (const input of made.elements) {
      input.removeAttribute("aria-invalid");
      input.removeAttribute("aria-describedby");
    }
  });
  made.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = made.querySelector("button");
    if (button.disabled) return;
    button.disabled = true;
    try {
      const fields = Object.fromEntries(new FormData(made));
      const now = JSON.stringify([shown.id, fields]);
      if (now !== meant) key = newKey();
      meant = now;
      const done = await act(fields, key);
      // Done: what comes next is meant anew, even if it looks the same.
      meant = "";
      made.reset();
      say(done);
      await refresh();
    } catch (error) {
      fail(error, made);
      // What was refused is meant anew next time; what is not known is asked again with the same key.
      if (!error.again) meant = "";
    } finally {
      button.disabled = false;
    }
  });
}

function fail(error, made) {
  if (!(error instanceof Refused)) {
    say("Something went wrong on this page. Load it again; nothing is done twice.", true);
    throw error;
  }
  const words = error.errors.map(({ pointer, detail }) => `${pointer.replace(/^[/?]/, "").replaceAll("_", " ")} ${detail}`);
  say(words.length > 0 ? `${words.join("; ")}.` : `${error.message.replace(/\.$/, "")}.`, true);
  for (const { pointer } of error.errors) {
    const input = made?.elements.namedItem(pointer.slice(1));
    if (input) {
      input.setAttribute("aria-invalid", "true");
      input.setAttribute("aria-describedby", "say");
      input.focus();
    }
  }
}

/** What was done shows at once, wherever it can be seen. */
async function refresh() {
  await list();
  if (shown.id) await show(shown.id);
}

function given(fields) {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value.trim() !== ""));
}

form("open", async (fields, key) => {
  const { body } = await call("POST", "/wallet", given(fields), key);
  location.hash = `wallet=${body.id}`;
  return `Wallet #${body.id} is open with ${pretty(body.balance)} ${body.currency}.`;
});

for (const [action, done] of [["deposit", "Deposited"], ["withdraw", "Withdrawn"]]) {
  form(action, async (fields, key) => {
    const { body } = await call("POST", `/wallet/${action}`, { id: shown.id, ...given(fields) }, key);
    return `${done}. The balance is ${pretty(body.balance)} ${body.currency}.`;
  });
}

form("transfer", async (fields, key) => {
  const { body } = await call("POST", "/wallet/transfer", { from: shown.id, ...given(fields) }, key);
  return `${pretty(body.amount)} ${body.currency} went to wallet #${body.to}.`;
});

$("access").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey(new FormData(event.target).get("key"));
  event.target.reset();
  attempt(refresh);
});

function attempt(work) {
  Promise.resolve().then(work).catch((error) => fail(error));
}

function follow() {
  const id = /^#wallet=(\d+)$/.exec(location.hash)?.[1];
  if (!id) return;
  attempt(async () => {
    await show(id);
    $("wallet-title").focus({ preventScroll: true });
  });
}

for (const [id, next] of [["older", () => history(shown.older)], ["more-wallets", () => list(moreWallets)]]) {
  const button = $(id);
  button.addEventListener("click", () => {
    if (button.disabled) return;
    button.disabled = true;
    attempt(() => next().finally(() => { button.disabled = false; }));
  });
}
window.addEventListener("hashchange", follow);
attempt(async () => {
  await list();
  follow();
});
