// The view of a game: shows its price and its sale, and buys it at the price that is shown.

import { call, userId } from "/assets/api.js";
import {
  $, bindForm, element, formatAmount, runReportingErrors, timeElement, withoutEmpty,
} from "/assets/page.js";
import { noteDecimals, readBalance, showBalance } from "/assets/store-balance.js";

/** The game on display, whether the user owns it, and the price at which the button buys it. */
const shown = { game: null, owned: false, price: null };
const fields = $("buy").elements;

export function isFree(price) {
  return /^[0.]+$/.test(price);
}

export function formatPrice(price, currency) {
  return isFree(price) ? "Free" : `${formatAmount(price)} ${currency}`;
}

/** Shows the price in the selected currency, or `changed`, the price that the server has asked for instead. */
function showPrice(changed) {
  const { currency, price: regular, sale } = shown.game.prices.find((price) => price.currency === fields.currency.value);
  shown.price = changed ?? sale?.price ?? regular;
  const line = isFree(shown.price)
    ? ["Free"]
    : [formatAmount(shown.price), " ", element("span", currency, "unit")];
  if (shown.price !== regular) line.push(" ", element("del", formatAmount(regular)));
  $("price").replaceChildren(...line);
  $("price-sale").hidden = !sale;
  if (sale) $("price-sale").replaceChildren("On sale until ", timeElement(sale.ends_at));
  $("buy").querySelector("button").textContent = isFree(shown.price)
    ? `${shown.owned ? "Give" : "Get"} it for free`
    : `${shown.owned ? "Buy as a gift" : "Buy"} for ${formatPrice(shown.price, currency)}`;
}

async function showWallet() {
  const currency = fields.currency.value;
  const balance = userId() && await readBalance(currency);
  if (currency === fields.currency.value) $("buy-balance").textContent = balance ? `Your wallet has ${balance}.` : "";
}

/** Whether the signed-in user owns a game. The library is ordered by id, so reading one entry is enough. */
async function isOwned(id) {
  if (!userId()) return false;
  const { body } = await call("GET", `/api/users/${userId()}/library?limit=1&after=${BigInt(id) - 1n}`);
  return body.games[0]?.gameId === id;
}

function showFacts(game) {
  const facts = [game.genre];
  if (game.publisher) facts.push(`publisher ${game.publisher}`);
  if (game.state !== "published") facts.push(game.state);
  $("game-facts").textContent = facts.join(" \u00b7 ");
  if (game.base) {
    const base = element("a", `game ${game.base}`);
    base.href = `#game=${game.base}`;
    $("game-facts").append(" \u00b7 downloadable content of ", base);
  }
}

function clearOptions() {
  fields.code.value = fields.gift_to.value = "";
  $("buy").querySelector("details").open = false;
}

/** Id of the game that was requested last. Late responses about other games are ignored. */
let wanted = null;

export async function showGame(id) {
  wanted = id;
  const [{ body: game }, owned] = await Promise.all([call("GET", `/api/games/${id}`), isOwned(id)]);
  if (wanted !== id) return;
  if (shown.game?.gameId !== id) clearOptions();
  const currency = shown.game?.gameId === id ? fields.currency.value : game.currency;
  Object.assign(shown, { game, owned });
  for (const { currency: code, price } of game.prices) noteDecimals(code, price);
  $("game-title").textContent = game.title;
  $("game-description").textContent = game.description;
  showFacts(game);
  $("game-manage").href = `#manage=${id}`;
  $("copies-left").hidden = game.limited === null;
  $("copies-left").textContent = game.limited === "0" ? "Sold out." : `Copies left: ${game.limited}`;
  $("owned").hidden = !owned;
  if (owned) $("buy").querySelector("details").open = true;
  fields.currency.replaceChildren(...game.prices.map((price) => element("option", price.currency)));
  fields.currency.value = game.prices.some((price) => price.currency === currency) ? currency : game.currency;
  $("currency-field").hidden = game.prices.length < 2;
  const isForSale = game.state === "published" && game.limited !== "0";
  $("buy").hidden = !isForSale || !userId();
  $("buy-sign-in").hidden = !isForSale || userId() !== null;
  showPrice();
  await showWallet();
}

/** Shows the game at its current price, after a purchase at the price of the page was refused. */
async function showChangedPrice({ price }, code) {
  const { currency } = fields;
  await showGame(shown.game.gameId);
  showPrice(price);
  const now = formatPrice(price, currency.value);
  const cause = code ? `With the code ${code} the price is ${now}.` : `The price is now ${now}.`;
  return `${cause} Nothing was charged: press the button to buy at this price.`;
}

bindForm("buy", async (form, key) => {
  const { game, price } = shown;
  const { currency, code, gift_to } = withoutEmpty(form);
  const path = `/api/games/${game.gameId}/purchase`;
  let bought;
  try {
    ({ body: bought } = await call("POST", path, { currency, code, gift_to, expected_price: price }, key));
  } catch (error) {
    if (error.problem?.type === "/problems/price-changed") return showChangedPrice(error.problem, code);
    // The game may be sold out or already owned. After an unknown outcome, a retry sends the same request and price.
    if (error.status === 409) await showGame(game.gameId);
    throw error;
  }
  clearOptions();
  await Promise.all([showGame(game.gameId), showBalance()]);
  const charged = isFree(bought.price) ? "Nothing was charged." : `Charged ${formatPrice(bought.price, bought.currency)}.`;
  return gift_to ? `${game.title} was given to user ${bought.userId}. ${charged}` : `${game.title} is yours. ${charged}`;
}, { context: () => [shown.game.gameId, shown.price], resets: false });

fields.currency.addEventListener("change", () => {
  showPrice();
  runReportingErrors(showWallet);
});
// A price that the server asked for holds only for the code of that request.
fields.code.addEventListener("input", () => showPrice());
