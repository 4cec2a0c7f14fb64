// Trading on the exchange page: balances, quotes, placing orders, and the orders of the user.

import { call, userId } from "/assets/api.js";
import { orderItem, showTerms } from "/assets/exchange-order.js";
import { $, bindButton, bindForm, element, formatAmount, showError, withoutEmpty } from "/assets/page.js";

/** Number of orders on a page of the list. */
const PAGE = 20;
/** Interval at which the countdown is updated. */
const TICK_MS = 250;
/** Maximum number of quotes that the page requests in a row without user action. */
const RENEWALS_MAX = 20;
/** Uncertainty of the server's time: the header `Date` contains only whole seconds. */
const CLOCK_MS = 1000;

/** Currencies and limits of the exchange, as the server describes them. */
let info = null;

/** The quote on the page. `request` is null if there is no quote; `endsAt` is in the time of the page's clock. */
const offer = { request: null, quote: null, endsAt: 0, renewals: 0, isBusy: false, isUncertain: false };

export async function showTrade() {
  const user = userId();
  $("trade-sign-in").hidden = user !== null;
  for (const id of ["open-wallets", "trade", "own-orders"]) $(id).hidden = true;
  dropOffer();
  if (!user) return;
  ({ body: info } = await call("GET", "/exchange/info"));
  $("fiat-option").textContent = info.fiat_currency;
  $("crypto-option").textContent = info.crypto_currency;
  $("deposit").hidden = !info.may_deposit;
  showLimits();
  const hasWallets = await showBalances();
  $("open-wallets").hidden = hasWallets;
  $("trade").hidden = !hasWallets;
  $("own-orders").hidden = !hasWallets;
  if (hasWallets) await showOrders(`/exchange/orders/${user}?limit=${PAGE}`, true);
}

function showLimits() {
  const amount = (limit) => `${formatAmount(limit)} ${info.fiat_currency}`;
  const limits = [];
  if (info.min !== null) limits.push(`at least ${amount(info.min)}`);
  if (info.max !== null) limits.push(`at most ${amount(info.max)}`);
  if (info.approval !== null) limits.push(`those above ${amount(info.approval)} wait for approval`);
  $("limits").hidden = limits.length === 0;
  $("limits").textContent = `Orders: ${limits.join("; ")}.`;
}

function showAmount(id, amount, currency) {
  $(id).replaceChildren(formatAmount(amount), " ", element("span", currency, "unit"));
}

/** Shows the balances. Returns whether the user has wallets. */
async function showBalances() {
  try {
    const { body } = await call("GET", `/exchange/wallet/${userId()}`);
    showAmount("fiat-balance", body.fiat_amount, info.fiat_currency);
    showAmount("crypto-balance", body.crypto_amount, info.crypto_currency);
    return true;
  } catch (error) {
    if (error.status === 404) return false;
    throw error;
  }
}

/** URL of the next page of orders. */
let moreOrders = null;

async function showOrders(path, isFirst) {
  const { body, next } = await call("GET", path);
  if (isFirst) $("orders").replaceChildren();
  $("orders").append(...body.map((order) => orderItem(order, info.crypto_currency)));
  $("no-orders").hidden = $("orders").children.length > 0;
  moreOrders = next;
  $("more-orders").hidden = !next;
}

function dropOffer() {
  Object.assign(offer, { request: null, quote: null, renewals: 0, isUncertain: false });
  $("offer").hidden = true;
}

/** Requests a quote, and shows it unless the user has asked for a different quote meanwhile. */
async function requestQuote() {
  const { request } = offer;
  const { body, at } = await call("POST", "/exchange/quote", request);
  if (offer.request !== request) return;
  const lifetime = Date.parse(body.expires_at) - at - CLOCK_MS;
  Object.assign(offer, { quote: body, endsAt: performance.now() + lifetime });
  showTerms($("offer-terms"), { ...body, currency: info.fiat_currency }, info.crypto_currency);
  const verb = body.side === "buy" ? "Buy" : "Sell";
  const button = $("order").querySelector("button");
  button.textContent = `${verb} ${formatAmount(body.crypto_amount)} ${info.crypto_currency}`;
  $("offer").hidden = false;
  tick();
}

/** Requests a new quote in place of an expired quote. */
async function renewQuote() {
  if (offer.renewals === RENEWALS_MAX) {
    dropOffer();
    return;
  }
  offer.renewals += 1;
  const button = $("order").querySelector("button");
  offer.isBusy = true;
  button.disabled = true;
  $("countdown").textContent = "The quote has expired. Getting a new one...";
  try {
    await requestQuote();
  } catch (error) {
    dropOffer();
    showError(error);
  } finally {
    offer.isBusy = false;
    button.disabled = false;
  }
}

/** Updates the countdown. Requests a new quote at its end, unless an order is being placed or the page is hidden. */
function tick() {
  if (!offer.quote || offer.isBusy) return;
  if (offer.isUncertain) {
    $("countdown").textContent = "It is not known whether the order was placed. Press again: it is placed once.";
    return;
  }
  const left = Math.ceil((offer.endsAt - performance.now()) / 1000);
  if (left > 0) $("countdown").textContent = `This price is locked for ${left} s.`;
  else if (!document.hidden) void renewQuote();
}

$("unit").addEventListener("change", () => { $("amount").name = $("unit").value; });
$("quote").addEventListener("input", dropOffer);

bindForm("quote", async (fields) => {
  dropOffer();
  offer.request = withoutEmpty(fields);
  await requestQuote();
}, { resets: false });

bindForm("order", async (_fields, key) => {
  const { side, quote_id } = offer.quote;
  offer.isBusy = true;
  try {
    const { body } = await call("POST", `/exchange/${side}/${userId()}`, { quote_id }, key);
    dropOffer();
    $("amount").value = "";
    location.hash = `order=${body.order_id}`;
    return `Order ${body.order_id} is placed.`;
  } catch (error) {
    offer.isUncertain = error.mayHaveSucceeded === true;
    // A refused order was not placed, and its quote can no longer be used, so the page requests a new quote.
    if (error.status === 409) offer.endsAt = 0;
    throw error;
  } finally {
    offer.isBusy = false;
    tick();
  }
}, { context: () => offer.quote.quote_id });

bindForm("deposit", async (fields, key) => {
  await call("PATCH", `/exchange/wallet/${userId()}`, withoutEmpty(fields), key);
  return `Deposited ${formatAmount(fields.fiat_amount.trim())} ${info.fiat_currency}.`;
}, { refresh: showBalances });

bindButton($("open-wallets-button"), async () => {
  await call("POST", `/exchange/wallet/${userId()}`);
  await showTrade();
});
bindButton($("more-orders"), () => showOrders(moreOrders, false));
setInterval(tick, TICK_MS);
