// Orders on the exchange page: items of the lists of orders, and the view of an order, which shows its steps live.

import { call } from "/assets/api.js";
import { $, bindForm, element, formatAmount, runReportingErrors, showError, timeElement, withoutEmpty } from "/assets/page.js";
import { openSocket } from "/assets/socket.js";

/** Time between two reads of an order while there is no live connection. */
const POLL_MS = 2000;

const GOOD = ["completed", "done"];
const BAD = ["failed", "stuck", "unknown"];

function classOf(state) {
  if (GOOD.includes(state)) return "good";
  return BAD.includes(state) ? "bad" : "";
}

function showBadge(badge, state) {
  badge.textContent = state;
  badge.className = `badge ${classOf(state)}`;
  return badge;
}

function isOver({ state }) {
  return state === "completed" || state === "failed";
}

/** Returns the item of an order in a list. `withUser` adds the user of the order. */
export function orderItem(order, crypto, withUser = false) {
  const verb = order.side === "buy" ? "Buy" : "Sell";
  const link = element("a", `Order ${order.order_id}`);
  link.href = `#order=${order.order_id}`;
  const amounts = `: ${verb} ${formatAmount(order.crypto_amount)} ${crypto} for ${formatAmount(order.fiat_amount)} ${order.currency}`;
  const title = element("span", undefined, "title number");
  title.append(link, amounts);
  const when = element("span", undefined, "muted small when");
  if (withUser) when.append(`user ${order.user_id}, `);
  when.append(timeElement(order.created_at));
  const item = element("li");
  item.append(title, showBadge(element("span"), order.state), when);
  if (order.reason) item.append(element("span", order.reason, "muted small why"));
  return item;
}

/** Shows the amounts of an order or a quote. */
export function showTerms(list, { side, fiat_amount, crypto_amount, price, fee, currency }, crypto) {
  const fiat = (amount) => `${formatAmount(amount)} ${currency}`;
  const coins = `${formatAmount(crypto_amount)} ${crypto}`;
  const [paid, received] = side === "buy" ? [fiat(fiat_amount), coins] : [coins, fiat(fiat_amount)];
  const lines = [["You pay", paid], ["You get", received], ["Price", `${fiat(price)} / ${crypto}`], ["Fee, included", fiat(fee)]];
  list.replaceChildren(...lines.flatMap(([label, text]) => [element("dt", label), element("dd", text)]));
}

function attempts(count) {
  return count === "1" ? "1 attempt" : `${count} attempts`;
}

/** Returns the number of attempts and the transfers of a step. */
function facts(step) {
  const parts = [];
  if (step.attempts !== "0") parts.push(attempts(step.attempts));
  if (step.transfer_id) parts.push(`transfer ${step.transfer_id}`);
  if (step.undo_attempts !== "0") parts.push(`${attempts(step.undo_attempts)} to undo it`);
  if (step.undo_transfer_id) parts.push(`undone by transfer ${step.undo_transfer_id}`);
  return parts.join(", ");
}

function stepItem(step) {
  const item = element("li", undefined, classOf(step.state));
  const name = element("p", step.name, "name");
  name.append(showBadge(element("span"), step.state));
  item.append(name);
  const line = element("p", facts(step), "muted small number");
  const at = step.ended_at ?? step.started_at;
  if (at) line.append(line.textContent ? ", " : "", step.ended_at ? "ended " : "began ", timeElement(at));
  item.append(line);
  if (step.error) item.append(element("p", step.error, "error small"));
  return item;
}

/** The order that is shown, and the socket or timer by which the page follows it. */
const followed = { id: null, socket: null, timer: null, isReading: false, isStale: false };

function stopFollowing() {
  followed.socket?.close();
  clearInterval(followed.timer);
  Object.assign(followed, { id: null, socket: null, timer: null });
}

/** Reads the order and shows it. Returns the order, or null if the user has left it meanwhile. */
async function readOrder(id) {
  const [{ body: order }, { body: info }] = await Promise.all([
    call("GET", `/exchange/order/${id}`),
    call("GET", "/exchange/info"),
  ]);
  if (followed.id !== id) return null;
  $("order-title").textContent = `Order ${id}: ${order.side} ${info.crypto_currency}`;
  showBadge($("order-state"), order.state);
  $("order-reason").textContent = order.reason ?? "";
  showTerms($("order-terms"), order, info.crypto_currency);
  $("steps").replaceChildren(...order.steps.map(stepItem));
  $("order-commands").hidden = isOver(order);
  return order;
}

/** Reads the order again, and once more if it has changed meanwhile. Stops following an order that has ended. */
async function refreshOrder() {
  if (followed.isReading) {
    followed.isStale = true;
    return;
  }
  const { id } = followed;
  followed.isReading = true;
  try {
    do {
      followed.isStale = false;
      const order = await readOrder(id);
      if (order && isOver(order)) {
        stopFollowing();
        showLiveness("The order is over.");
      }
    } while (followed.isStale && followed.id === id);
  } catch (error) {
    // If the server did not respond, the next poll tries again.
    if (!error.mayHaveSucceeded) {
      stopFollowing();
      showError(error);
    }
  } finally {
    followed.isReading = false;
  }
}

function showLiveness(text) {
  if ($("live").textContent !== text) $("live").textContent = text;
}

/** Notes whether there is a live connection. Polls while there is none. */
function setLive(isLive) {
  clearInterval(followed.timer);
  followed.timer = isLive ? null : setInterval(() => runReportingErrors(refreshOrder), POLL_MS);
  showLiveness(isLive ? "Live." : `No live connection: read every ${POLL_MS / 1000} s.`);
}

/** Follows an order that has not ended. */
function follow(id) {
  setLive(false);
  followed.socket = openSocket({
    opened: () => followed.socket.send({ action: "subscribe", topic: `order:${id}` }),
    received: (frame) => {
      setLive(!frame.error);
      // The order is also read when the subscription begins, so that no change after the first read is missed.
      if (!frame.error) runReportingErrors(refreshOrder);
    },
    lost: () => setLive(false),
  });
}

export async function showOrder(id) {
  stopFollowing();
  followed.id = id;
  const order = await readOrder(id);
  if (!order) return;
  if (isOver(order)) showLiveness("The order is over.");
  else follow(id);
}

window.addEventListener("hashchange", stopFollowing);

const command = $("command");
command.elements.command.addEventListener("change", ({ target }) => { $("outcome").hidden = target.value !== "resolve"; });

/** Id of the order that the URL names. */
function shownId() {
  return location.hash.split("=")[1];
}

bindForm("command", async ({ command: name, outcome, reason }) => {
  const body = withoutEmpty({ reason, outcome: name === "resolve" ? outcome : "" });
  await call("POST", `/api/orders/${shownId()}/${name}`, body);
  $("outcome").hidden = true;
  return `Order ${shownId()} takes the command ${name}.`;
}, { context: shownId, refresh: () => showOrder(shownId()) });
