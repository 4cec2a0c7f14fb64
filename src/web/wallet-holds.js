// The holds of a wallet: lists, places, captures and releases them.

import { call, newIdempotencyKey } from "/assets/api.js";
import {
  $, bindButton, bindDialog, bindForm, element, focusAfter, formatAmount, showMessage, timeElement, withoutEmpty,
} from "/assets/page.js";

/** Number of holds on a page of the list. */
const PAGE = 5;
const STATES = { voided: "released" };

function linkButton(text, hold) {
  const button = element("button", text, "link");
  button.type = "button";
  button.setAttribute("aria-label", `${text} hold ${hold.id}`);
  return button;
}

/** Describes how much of a hold was captured, was released, or is left. */
function parts({ captured, released, remaining, state }) {
  const isZero = (amount) => Number(amount) === 0;
  if (isZero(captured)) return "";
  const amounts = [[captured, "captured"], [released, "released"], [state === "open" ? remaining : "0", "left"]];
  return amounts.filter(([amount]) => !isZero(amount)).map(([amount, part]) => `${formatAmount(amount)} ${part}`).join(", ");
}

/** Binds the holds of the wallet that is shown; `refresh` reloads the wallet. Returns `load`, which loads the holds. */
export function bindHolds(shown, refresh) {
  /** URL of the next page. */
  let more = null;
  /** The hold that is being captured. */
  let captured = null;

  function askForCapture(hold, button) {
    captured = hold;
    $("capture-title").textContent = `Capture hold ${hold.id}`;
    $("capture-left").textContent = `${formatAmount(hold.remaining)} ${hold.currency} can be captured.`;
    dialog.open(button);
  }

  const dialog = bindDialog("capture", async ({ keep, ...fields }, key) => {
    const body = { ...withoutEmpty(fields), final: !keep };
    await call("POST", `/wallet/hold/${captured.id}/capture`, body, key);
    return fields.to.trim() ? `Captured hold ${captured.id} for wallet #${fields.to.trim()}.` : `Captured hold ${captured.id}.`;
  }, { context: () => captured.id, refresh, heading: "holds-title" });

  function holdItem(hold) {
    const item = element("li");
    const title = element("span", `${formatAmount(hold.amount)} ${hold.currency} `, "title number");
    title.append(element("span", STATES[hold.state] ?? hold.state, "badge"));
    item.append(title);
    if (hold.memo) item.append(element("span", hold.memo, "memo"));
    const when = element("span", `Hold ${hold.id}, `, "muted small when");
    const isOpen = hold.state === "open";
    when.append(isOpen ? "expires " : "placed ", timeElement(isOpen ? hold.expires_at : hold.created_at));
    const text = parts(hold);
    if (text) when.append(`; ${text}`);
    item.append(when);
    if (isOpen) item.append(actions(hold));
    return item;
  }

  function actions(hold) {
    const capture = linkButton("Capture", hold);
    capture.addEventListener("click", () => askForCapture(hold, capture));
    const release = linkButton("Release", hold);
    // A retry after a lost response uses the same idempotency key.
    const key = newIdempotencyKey();
    bindButton(release, () => focusAfter(async () => {
      await call("POST", `/wallet/hold/${hold.id}/void`, undefined, key);
      await refresh();
      showMessage(`Released hold ${hold.id}.`);
      return $("holds-title");
    }));
    const line = element("span", undefined, "actions small");
    line.append(capture, release);
    return line;
  }

  async function load(path) {
    const { id } = shown;
    const { body, next } = await call("GET", path ?? `/wallet/${id}/holds?limit=${PAGE}`);
    if (shown.id !== id) return;
    if (!path) $("holds").replaceChildren();
    $("holds").append(...body.map(holdItem));
    $("no-holds").hidden = $("holds").children.length > 0;
    more = next;
    $("more-holds").hidden = !next;
  }

  bindForm("hold", async (fields, key) => {
    const request = { id: shown.id, ...withoutEmpty(fields), expires_in: Number(fields.expires_in) };
    const { body } = await call("POST", "/wallet/hold", request, key);
    return `Placed hold ${body.id} of ${formatAmount(body.amount)} ${body.currency}.`;
  }, { context: () => shown.id, refresh });
  bindButton($("more-holds"), () => load(more));
  return { load: () => load() };
}
