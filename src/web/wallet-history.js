// The history of a wallet: shows its entries with links to their traces, and refunds transfers.

import { call } from "/assets/api.js";
import {
  $, bindButton, bindDialog, capitalized, copyText, element, formatAmount, showMessage, timeElement, withoutEmpty,
} from "/assets/page.js";

/** Number of entries on a page of the history. */
const PAGE = 25;
/** Time around an entry in which Grafana looks for its trace. */
const TRACE_MS = 60 * 60 * 1000;
/** Kinds of transfers that can be refunded, if the money entered or left the wallet. */
const REFUNDABLE = ["deposit", "withdrawal", "transfer", "capture"];
const KINDS = { open: "opened", close: "closed", freeze: "frozen", unfreeze: "unfrozen", void: "release", expiry: "expiry of a hold" };
const SIGNS = { in: "+", out: "\u2212" };

/** URL of the Grafana page that shows the trace of an entry. */
function traceUrl(grafana, { trace_id, at }) {
  const moment = Date.parse(at);
  const query = {
    refId: "A", queryType: "traceql", query: trace_id, datasource: { type: "tempo", uid: "tempo" },
  };
  const range = { from: String(moment - TRACE_MS), to: String(moment + TRACE_MS) };
  const panes = { trace: { datasource: "tempo", queries: [query], range } };
  return `${grafana}/explore?${new URLSearchParams({ schemaVersion: 1, panes: JSON.stringify(panes) })}`;
}

/** Returns a link to the trace of an entry or, without Grafana, a button that copies the trace id. */
function traceElement(grafana, entry) {
  if (grafana) {
    const link = element("a", "Trace");
    link.href = traceUrl(grafana, entry);
    link.setAttribute("aria-label", `Trace of transfer ${entry.id}`);
    return link;
  }
  const button = linkButton("Copy trace ID", `Copy trace ID of transfer ${entry.id}`);
  button.title = entry.trace_id;
  bindButton(button, () => copyText(entry.trace_id));
  return button;
}

function linkButton(text, label) {
  const button = element("button", text, "link");
  button.type = "button";
  button.setAttribute("aria-label", label);
  return button;
}

function entryCell({ kind, direction, counterparty, memo }) {
  const cell = element("td", capitalized(KINDS[kind] ?? kind), "entry");
  const preposition = direction === "in" ? "from" : "to";
  if (counterparty) cell.append(" ", element("span", `${preposition} #${counterparty}`, "other number"));
  if (memo) cell.append(element("span", memo, "memo muted small"));
  return cell;
}

/** Binds the history of the wallet that is shown; `refresh` reloads the wallet. Returns `load`, which loads entries. */
export function bindHistory(shown, refresh) {
  /** URL of the next page, with older entries. */
  let older = null;
  /** The transfer that is being refunded. */
  let transfer = null;

  async function askForRefund(id, button) {
    ({ body: transfer } = await call("GET", `/wallet/transfer/${id}`));
    const amount = (value) => `${formatAmount(value)} ${transfer.currency}`;
    const { refundable } = transfer;
    if (!Number(refundable)) {
      return showMessage(refundable ? `Transfer ${id} is refunded already.` : `Transfer ${id} cannot be refunded.`);
    }
    $("refund-title").textContent = `Refund transfer ${id}`;
    $("refund-left").textContent = refundable === transfer.amount
      ? `All of ${amount(refundable)} can be refunded.`
      : `${amount(refundable)} of ${amount(transfer.amount)} can still be refunded.`;
    return dialog.open(button);
  }

  const dialog = bindDialog("refund", async (fields, key) => {
    const { body } = await call("POST", "/wallet/refund", { transfer: transfer.id, ...withoutEmpty(fields) }, key);
    return `Refunded ${formatAmount(body.amount)} ${body.currency} of transfer ${transfer.id}.`;
  }, { context: () => transfer.id, refresh, heading: "history-title" });

  function actionsCell(entry) {
    const cell = element("td", undefined, "actions small");
    const isMoved = ["in", "out"].includes(entry.direction);
    if (isMoved && REFUNDABLE.includes(entry.kind)) {
      const button = linkButton("Refund", `Refund transfer ${entry.id}`);
      bindButton(button, () => askForRefund(entry.id, button));
      cell.append(button);
    }
    if (entry.trace_id) cell.append(traceElement(shown.grafana, entry));
    return cell;
  }

  function historyRow(entry) {
    const date = element("td", undefined, "date");
    date.append(timeElement(entry.at));
    const moves = entry.direction !== "none";
    const amount = moves ? (SIGNS[entry.direction] ?? "") + formatAmount(entry.amount) : "";
    const row = element("tr");
    row.append(
      date,
      entryCell(entry),
      element("td", amount, `amount number ${entry.direction}`),
      element("td", formatAmount(entry.balance), "balance number"),
      actionsCell(entry),
    );
    return row;
  }

  async function load(path) {
    const { id } = shown;
    const { body, next } = await call("GET", path ?? `/wallet/${id}/history?limit=${PAGE}`);
    if (shown.id !== id) return;
    if (!path) $("history").replaceChildren();
    $("history").append(...body.map(historyRow));
    older = next;
    $("older").hidden = !next;
  }

  bindButton($("older"), () => load(older));
  return { load: () => load() };
}
