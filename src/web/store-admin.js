// Management on the store page: games, sales, activation keys, and the statements of publishers.

import { call } from "/assets/api.js";
import {
  $, bindButton, bindForm, element, formatAmount, showMessage, timeElement, withoutEmpty,
} from "/assets/page.js";

/** Maximum number of entries of a statement that the page shows. */
const ENTRIES_MAX = 100;
const MINUTE_MS = 60_000;
const WEEK_MS = 7 * 24 * 60 * MINUTE_MS;

/** The game that is being changed, and the values of its form; null while a game is being added. */
const edited = { game: null, values: null };
const form = $("edit");

/** Parses a whole number. Any other text stays a string, which the server refuses with the reason. */
function wholeNumber(text) {
  return /^\d+$/.test(text) ? Number(text) : text;
}

/** Parses prices such as `21.99 USD, 18.50 GBP`. */
function furtherPrices(text) {
  return text.split(",").map((part) => part.trim()).filter(Boolean).map((part) => {
    const [price, currency] = part.split(/\s+/);
    return { price, currency: currency?.toUpperCase() };
  });
}

/** Converts the fields of the form that have to be sent to the members of a game in a request. */
function gameBody({ copies, prices, currency, ...rest }) {
  const body = { ...rest };
  if (copies !== undefined) body.copies = copies === "" ? "unlimited" : wholeNumber(copies);
  if (prices !== undefined) body.prices = furtherPrices(prices);
  if (currency !== undefined) body.currency = currency.toUpperCase();
  return body;
}

function trimmed(fields) {
  return Object.fromEntries(Object.entries(fields).map(([name, value]) => [name, value.trim()]));
}

function fillGame(game) {
  const prices = game.prices.filter(({ currency }) => currency !== game.currency);
  edited.game = game;
  edited.values = trimmed({
    title: game.title,
    genre: game.genre,
    price: game.price,
    currency: game.currency,
    description: game.description,
    prices: prices.map(({ price, currency }) => `${price} ${currency}`).join(", "),
    copies: game.copies ?? "",
    state: game.state,
  });
  for (const [name, value] of Object.entries(edited.values)) form.elements[name].value = value;
  form.elements.publisher.value = game.publisher ?? "";
  form.elements.base.value = game.base ?? "";
  $("edit-show").href = `#game=${game.gameId}`;
}

/** Id of the game that was requested last; undefined to add a game. Late responses about other games are ignored. */
let wanted;

/** Shows the forms of the game with this id, or the form that adds one. */
export async function showManagement(id) {
  wanted = id;
  $("made-keys").hidden = true;
  if (id) {
    const { body: game } = await call("GET", `/api/games/${id}`);
    if (wanted !== id) return;
    fillGame(game);
    await showSales();
  } else {
    Object.assign(edited, { game: null, values: null });
    form.reset();
    $("offers").hidden = true;
  }
  // The publisher and the base game cannot be changed once the game is added.
  for (const name of ["publisher", "base"]) form.elements[name].disabled = Boolean(id);
  $("manage-title").textContent = id ? `Manage ${edited.game.title}` : "Manage games";
  $("edit-title").textContent = id ? "Change the game" : "Add a game";
  $("edit-links").hidden = !id;
}

bindForm("edit", async (fields, key) => {
  const values = trimmed(fields);
  if (edited.game) {
    const changed = Object.entries(values).filter(([name, value]) => value !== edited.values[name]);
    if (changed.length === 0) return "There is nothing to change.";
    const body = gameBody(Object.fromEntries(changed));
    if (body.currency) body.price = values.price;
    await call("PUT", `/api/games/${edited.game.gameId}`, body);
    return "The game is changed.";
  }
  // With open access, a game with only default settings needs no credential, so defaults are not sent.
  const { state, ...rest } = withoutEmpty(values);
  const body = gameBody(state === "published" ? rest : { state, ...rest });
  const { body: added } = await call("POST", "/api/games", { description: "", ...body }, key);
  location.hash = `#manage=${added.gameId}`;
  return `${added.title} is added.`;
}, {
  context: () => edited.game?.gameId ?? null,
  refresh: () => edited.game && showManagement(edited.game.gameId),
});

bindForm("find", async ({ id }) => {
  const { body: game } = await call("GET", `/api/games/${encodeURIComponent(id.trim() || "0")}`);
  location.hash = `#manage=${game.gameId}`;
});

/** Formats a moment as the value of an input, in the time zone of the browser. */
function localMoment(at) {
  const date = new Date(at);
  return new Date(date.getTime() - date.getTimezoneOffset() * MINUTE_MS).toISOString().slice(0, 19);
}

/** Converts the moment of an input to RFC 3339; undefined if the input is empty. */
function moment(local) {
  return local ? new Date(local).toISOString() : undefined;
}

function fillSale({ name, percent, price, currency, starts_at, ends_at, budget }) {
  const { elements } = $("sale");
  const values = { sale: name, percent, price, currency, budget, starts_at: localMoment(starts_at), ends_at: localMoment(ends_at) };
  for (const [field, value] of Object.entries(values)) elements[field].value = value ?? "";
}

function saleButton(text, name, action) {
  const button = element("button", text, "link small");
  button.type = "button";
  button.setAttribute("aria-label", `${text} the sale ${name}`);
  bindButton(button, action);
  return button;
}

function saleItem(sale) {
  const { name, percent, price, currency, starts_at, ends_at, budget, left } = sale;
  const discount = percent === null ? `${formatAmount(price)} ${currency}` : `${percent} % off`;
  const window = element("span", undefined, "muted small when");
  window.append(timeElement(starts_at), " to ", timeElement(ends_at));
  if (budget !== null) window.append(`, ${left} of ${budget} left`);
  const actions = element("span", undefined, "actions");
  actions.append(
    saleButton("Change", name, async () => {
      fillSale(sale);
      $("sale").elements.sale.focus();
    }),
    saleButton("Delete", name, async () => {
      await call("DELETE", `/api/games/${edited.game.gameId}/sales/${name}`);
      showMessage(`The sale ${name} is deleted.`);
      await showSales();
      $("sale").elements.sale.focus();
    }),
  );
  const item = element("li");
  item.append(element("span", `${name}: ${discount}`, "title"), window, actions);
  return item;
}

/** Shows sales and keys to a caller that manages the game. */
async function showSales() {
  let sales;
  try {
    ({ body: { sales } } = await call("GET", `/api/games/${edited.game.gameId}/sales`));
  } catch (error) {
    if (error.status !== 401 && error.status !== 403) throw error;
  }
  $("offers").hidden = !sales;
  $("sales").replaceChildren(...(sales ?? []).map(saleItem));
  $("no-sales").hidden = sales?.length > 0;
  const { elements } = $("sale");
  const now = Math.floor(Date.now() / MINUTE_MS) * MINUTE_MS;
  elements.starts_at.value ||= localMoment(now);
  elements.ends_at.value ||= localMoment(now + WEEK_MS);
}

bindForm("sale", async (fields) => {
  const { sale, starts_at, ends_at, budget, currency, ...discount } = withoutEmpty(trimmed(fields));
  const body = {
    ...discount,
    currency: currency?.toUpperCase(),
    starts_at: moment(starts_at),
    ends_at: moment(ends_at),
    budget: budget && wholeNumber(budget),
  };
  await call("PUT", `/api/games/${edited.game.gameId}/sales/${encodeURIComponent(sale ?? "")}`, body);
  return `The sale ${sale} is saved.`;
}, { context: () => edited.game.gameId, refresh: showSales });

bindForm("keys", async ({ count }, key) => {
  const path = `/api/games/${edited.game.gameId}/keys`;
  const { body } = await call("POST", path, { count: wholeNumber(count.trim()) }, key);
  const keys = body.keys.map((made) => made.key).filter(Boolean);
  if (keys.length === 0) return "An earlier attempt made these keys, and its answer was lost: make new ones.";
  $("made-keys").hidden = false;
  $("made-keys").querySelector("textarea").value = keys.join("\n");
  return `Made ${keys.length} ${keys.length === 1 ? "key" : "keys"}.`;
}, { context: () => edited.game.gameId });

function signed(amount) {
  return formatAmount(amount).replace("-", "\u2212");
}

/** Formats an amount that lowers the balance. */
function deducted(amount) {
  if (/^[0.]+$/.test(amount)) return signed(amount);
  return amount.startsWith("-") ? formatAmount(amount.slice(1)) : `\u2212${formatAmount(amount)}`;
}

function sum(label, amount, className) {
  return [element("dt", label, className), element("dd", amount, className)];
}

function entryRow({ at, kind, game, amount, balance }) {
  const row = element("tr");
  const when = element("td");
  when.append(timeElement(at));
  row.append(
    when,
    element("td", game ? `${kind} of game ${game}` : kind),
    element("td", signed(amount), "number"),
    element("td", signed(balance), "number"),
  );
  return row;
}

/** The beginning of a date in UTC, as RFC 3339. */
function midnight(date) {
  return date && `${date}T00:00:00Z`;
}

bindForm("statement", async (fields) => {
  const { publisher = "0", currency, from, to } = withoutEmpty(trimmed(fields));
  const given = { currency: currency?.toUpperCase(), from: midnight(from), to: midnight(to) };
  const query = new URLSearchParams(Object.entries(given).filter(([, value]) => value));
  const { body } = await call("GET", `/api/publishers/${encodeURIComponent(publisher)}/statement?${query}`);
  const amount = (text) => `${text} ${body.currency}`;
  $("sums").replaceChildren(
    ...sum("Balance before", amount(signed(body.opening_balance))),
    ...sum("Sales", amount(signed(body.sales))),
    ...sum("Refunds", amount(deducted(body.refunds))),
    ...sum("Tax", amount(deducted(body.tax))),
    ...sum("Fees", amount(deducted(body.fees))),
    ...sum("Payouts", amount(deducted(body.payouts))),
    ...sum("Balance after", amount(signed(body.closing_balance)), "total"),
  );
  $("entries").replaceChildren(...body.entries.slice(-ENTRIES_MAX).map(entryRow));
  $("entries-note").hidden = body.entries.length <= ENTRIES_MAX;
  $("entries-note").textContent = `The last ${ENTRIES_MAX} of ${body.entries.length} entries. The API has all of them, as CSV too.`;
  $("statement-result").hidden = false;
  return `Statement of publisher ${body.publisher}.`;
}, { resets: false });
