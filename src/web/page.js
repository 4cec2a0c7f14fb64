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

/** Removes a problem, and the marks of the inputs that it is about. */
function removeProblem(problem) {
  for (const input of document.querySelectorAll(`[aria-describedby="${problem.id}"]`)) {
    input.removeAttribute("aria-invalid");
    input.removeAttribute("aria-describedby");
  }
  problem.remove();
}

/** Removes the problems of the forms in `root`. */
export function clearProblems(root = document) {
  root.querySelectorAll(".problem").forEach(removeProblem);
}

/** Shows a problem of a form below `input`, or without an input above the form's button. */
function showProblem(form, text, input) {
  const marked = input ?? submitButton(form);
  const problem = element("p", text, "problem small");
  problem.id = `${form.id}-problem-${input?.name ?? "form"}`;
  problem.setAttribute("role", "alert");
  marked.setAttribute("aria-describedby", problem.id);
  // The problem is placed next to a child of the form, which may be a row of several fields.
  const child = marked.closest(`#${form.id} > *`);
  if (!input) return child.before(problem);
  input.setAttribute("aria-invalid", "true");
  const details = input.closest("details");
  if (details) details.open = true;
  let last = child;
  while (last.nextElementSibling?.matches(".problem")) last = last.nextElementSibling;
  return last.after(problem);
}

export function capitalized(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** Turns a text into a sentence that begins with a capital letter and ends with a period. */
function sentence(text) {
  return `${capitalized(text).replace(/\.$/, "")}.`;
}

function submitButton(form) {
  return form.querySelector("button:not([type=button])");
}

/** Shows an error at the inputs of the form that it is about, at the form itself, or above the page. */
export function showError(error, submitted) {
  // The user may have closed the form meanwhile.
  const form = submitted?.checkVisibility() ? submitted : null;
  if (!(error instanceof ApiError)) {
    showMessage("Unexpected error. Reload the page: a request is never applied twice.", true);
    throw error;
  }
  const rest = [];
  const marked = [];
  for (const { pointer, detail } of error.errors) {
    const name = pointer.replace(/^[/?]/, "");
    const text = `${name.replaceAll("_", " ")} ${detail}`.trim();
    const input = form?.elements.namedItem(name.split("/")[0]);
    // Each input shows at most one problem, and a group of radio buttons has no single input.
    if (input instanceof HTMLElement && !marked.includes(input)) {
      showProblem(form, sentence(text), input);
      marked.push(input);
    } else rest.push(text);
  }
  marked[0]?.focus();
  if (marked.length > 0 && rest.length === 0) return;
  const text = sentence(rest.length > 0 ? rest.join("; ") : error.message);
  if (form) showProblem(form, text);
  else showMessage(text, true);
}

export function runReportingErrors(task) {
  Promise.resolve().then(task).catch((error) => showError(error));
}

/** Moves the focus to the heading that `task` returns, unless the user has moved the focus meanwhile. */
export async function focusAfter(task) {
  const before = document.activeElement;
  const heading = await task();
  // If the element that had the focus is hidden by now, the body has the focus.
  if ([before, document.body].includes(document.activeElement)) heading?.focus();
}

export function withoutEmpty(fields) {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value.trim() !== ""));
}

/** Runs `task` while `button` is disabled. A disabled button loses the focus, so the focus is restored afterwards. */
async function whileDisabled(button, task) {
  const focused = document.activeElement;
  button.disabled = true;
  try {
    await task();
  } finally {
    button.disabled = false;
    if (document.activeElement === document.body && focused.isConnected) focused.focus({ preventScroll: true });
  }
}

/**
* Submits a form with `action`, which returns a message. A retry of the same input keeps its idempotency key until the
* outcome is known. `context` returns the values besides the input that the request depends on. `refresh` runs after a
* success.
*/
export function bindForm(id, action, { context = () => null, refresh = () => {}, resets = true } = {}) {
  const form = $(id);
  let key = newIdempotencyKey();
  let pending = "";

  async function submit() {
    let isDone = false;
    try {
      const fields = Object.fromEntries(new FormData(form));
      const submitted = JSON.stringify([context(), fields]);
      if (submitted !== pending) key = newIdempotencyKey();
      pending = submitted;
      const message = await action(fields, key);
      // After a success, the next submission is a new request, even with the same input.
      pending = "";
      isDone = true;
      if (resets) form.reset();
      if (message) showMessage(message);
      await refresh();
    } catch (error) {
      showError(error, isDone ? undefined : form);
      // After a rejection, the next submission is a new request; after an unknown outcome, it reuses the key.
      if (!error.mayHaveSucceeded) pending = "";
    }
  }

  form.addEventListener("input", ({ target }) => {
    for (const marked of [target, submitButton(form)]) {
      const problem = $(marked.getAttribute("aria-describedby"));
      if (problem?.matches(".problem")) removeProblem(problem);
    }
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const button = submitButton(form);
    if (button.disabled) return;
    clearProblems(form);
    runReportingErrors(() => whileDisabled(button, submit));
  });
}

/**
* Binds a form in a dialog, like `bindForm`; the form's other button cancels. After a success the focus goes to
* `heading`, because `refresh` may have replaced the button that opened the dialog. Returns an object with
* the method `open(button)`, which opens the dialog.
*/
export function bindDialog(id, action, { context, refresh, heading }) {
  const dialog = $(`${id}-dialog`);
  const form = $(id);
  bindForm(id, async (fields, key) => {
    const message = await action(fields, key);
    dialog.close();
    return message;
  }, {
    context,
    refresh: () => focusAfter(async () => {
      await refresh();
      return $(heading);
    }),
  });
  form.querySelector("button[type=button]").addEventListener("click", () => dialog.close());
  let opener = null;
  // The browser does not return the focus to a button that was disabled while the dialog opened.
  dialog.addEventListener("close", () => {
    const { activeElement } = document;
    if (activeElement === document.body || dialog.contains(activeElement)) opener.focus();
  });
  return {
    open(button) {
      opener = button;
      form.reset();
      clearProblems(form);
      dialog.showModal();
    },
  };
}

/** Hides the message about the last action at the next click or input, because it may cover a part of the page. */
export function bindMessage() {
  for (const event of ["click", "input"]) {
    document.addEventListener(event, ({ target }) => { if (target !== $("say")) $("say").hidden = true; }, {
      // This runs before the listeners that show the next message.
      capture: true,
    });
  }
}

/** Copies `text`. If the clipboard API is not available, as without HTTPS, copies a selection instead. */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const before = document.activeElement;
    const source = element("textarea", text, "offscreen");
    document.body.append(source);
    source.select();
    const isCopied = document.execCommand("copy");
    source.remove();
    before.focus();
    if (!isCopied) return showMessage(`Copy this: ${text}`);
  }
  return showMessage(`Copied ${text}.`);
}

/** Runs `action` when `button` is clicked, unless it is already running. */
export function bindButton(button, action) {
  button.addEventListener("click", () => {
    if (!button.disabled) runReportingErrors(() => whileDisabled(button, action));
  });
}
