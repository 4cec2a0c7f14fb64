// Shared by the pages: elements, amounts, messages, and forms that call the API.

import { ApiError, newIdempotencyKey } from "/assets/api.js";

export const $ = (id) => document.getElementById(id);

/** Creates an element with `text`, which is never read as HTML. */
export function element(tag, text, className) {
  const created = document.createElement(tag);
  if (text !== undefined) created.textContent = text;
  if (className) created.className = className;
  return created;
}

/** Formats a decimal with thin spaces between thousands, without changing its digits. */
export function formatAmount(decimal) {
  const [whole, rest] = String(decimal).split(".");
  const grouped = whole.replace(/\B(?=(\d{3})+$)/g, "\u202f");
  return rest === undefined ? grouped : `${grouped}.${rest}`;
}

const DATE_TIME = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

/** A moment in the time zone of the browser. */
export function timeElement(at) {
  const time = element("time", DATE_TIME.format(new Date(at)));
  time.dateTime = at;
  return time;
}

export function showMessage(text, bad = false) {
  const line = $("say");
  line.hidden = false;
  line.classList.toggle("bad", bad);
  line.setAttribute("role", bad ? "alert" : "status");
  line.textContent = text;
}

/** Shows what failed, and marks the inputs that it is about. */
export function showError(error, form) {
  if (!(error instanceof ApiError)) {
    showMessage("Unexpected error. Reload the page: a request is never applied twice.", true);
    throw error;
  }
  const fields = error.errors.map(({ pointer, detail }) => ({ name: pointer.replace(/^[/?]/, ""), detail }));
  const details = fields.map(({ name, detail }) => `${name.replaceAll("_", " ")} ${detail}`);
  showMessage(details.length > 0 ? `${details.join("; ")}.` : `${error.message.replace(/\.$/, "")}.`, true);
  for (const { name } of fields) {
    const input = form?.elements.namedItem(name.split("/")[0]);
    if (input) {
      input.setAttribute("aria-invalid", "true");
      input.setAttribute("aria-describedby", "say");
      input.focus();
    }
  }
}

export function runReportingErrors(task) {
  Promise.resolve().then(task).catch((error) => showError(error));
}

/** Moves the focus to the heading that `task` returns, unless the user has moved it meanwhile. */
export async function focusAfter(task, options) {
  const before = document.activeElement;
  const heading = await task();
  // What had the focus may be hidden by now: the focus is at the body then.
  if ([before, document.body].includes(document.activeElement)) heading?.focus(options);
}

export function withoutEmpty(fields) {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value.trim() !== ""));
}

/**
 * Submits a form with `action`, which returns a message. A retry of the same input keeps its idempotency key until the
 * outcome is known; `context` is what the request depends on beside the input. `refresh` runs after a success.
 */
export function bindForm(id, action, { context = () => null, refresh = () => {}, resets = true } = {}) {
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
      const submitted = JSON.stringify([context(), fields]);
      if (submitted !== pending) key = newIdempotencyKey();
      pending = submitted;
      const message = await action(fields, key);
      // Succeeded: the next submission is a new request, even with the same input.
      pending = "";
      if (resets) form.reset();
      if (message) showMessage(message);
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

/** Runs `action` at a click, once at a time. */
export function bindButton(button, action) {
  button.addEventListener("click", () => {
    if (button.disabled) return;
    button.disabled = true;
    runReportingErrors(() => action().finally(() => { button.disabled = false; }));
  });
}
