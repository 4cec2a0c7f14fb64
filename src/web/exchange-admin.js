// The operator's view on the exchange page: the orders of all users, the hot wallets, and commands in bulk.

import { call } from "/assets/api.js";
import { orderItem } from "/assets/exchange-order.js";
import { $, bindButton, bindForm, element, formatAmount, withoutEmpty } from "/assets/page.js";

/** Number of orders on a page of the list. */
const PAGE = 50;

/** URL of the next page of orders. */
let moreOrders = null;

async function showOrders(path, isFirst) {
  const { body: info } = await call("GET", "/exchange/info");
  const { body, next } = await call("GET", path);
  if (isFirst) $("all-orders").replaceChildren();
  $("all-orders").append(...body.map((order) => orderItem(order, info.crypto_currency, true)));
  $("none-found").hidden = $("all-orders").children.length > 0;
  moreOrders = next;
  $("more-all-orders").hidden = !next;
}

function showFiltered() {
  const fields = withoutEmpty(Object.fromEntries(new FormData($("filter"))));
  return showOrders(`/api/orders?${new URLSearchParams({ limit: PAGE, ...fields })}`, true);
}

export async function showManagement() {
  const { body: info } = await call("GET", "/exchange/info");
  const { body: hot } = await call("GET", "/api/hot-wallets");
  const lines = [[info.fiat_currency, hot.fiat_amount], [info.crypto_currency, hot.crypto_amount]];
  $("hot-wallets").replaceChildren(
    ...lines.flatMap(([currency, amount]) => [element("dt", currency), element("dd", formatAmount(amount))]),
  );
  await showFiltered();
}

bindForm("filter", showFiltered, { resets: false });
bindButton($("more-all-orders"), () => showOrders(moreOrders, false));

bindForm("bulk", async (fields) => {
  const { body } = await call("POST", "/api/orders/commands", withoutEmpty(fields));
  const { orders } = body;
  if (orders.length === 0) return `No order is ${fields.state} and takes the command ${fields.command}.`;
  return `${orders.length === 1 ? "1 order takes" : `${orders.length} orders take`} the command ${fields.command}.`;
}, { refresh: showManagement });
