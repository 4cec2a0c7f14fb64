// Talking to the API: exact decimals, one key for each thing that somebody means to do.

const KEY = "revwallet.key";

export function useKey(key) {
  if (key) sessionStorage.setItem(KEY, key);
  else sessionStorage.removeItem(KEY);
}

/** Why something was not done, in words. */
export class Refused extends Error {
  constructor(problem, status) {
    super(problem?.detail ?? `The server answered ${status}.`);
    this.errors = problem?.errors ?? [];
    // Whatever is no clear refusal may have been done.
    this.again = !(status >= 400 && status < 500);
  }
}

/** Numbers stay the text that they are: a double would round the large ones. */
function parse(text) {
  const exact = /("(?:balance|available|held|required|amount|fee)":)(-?\d+(?:\.\d+)?)/g;
  return text ? JSON.parse(text.replace(exact, '$1"$2"')) : null;
}

/** A key that nobody else has; works without HTTPS as well. */
export function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export async function call(method, path, body, key) {
  const headers = {};
  const credential = sessionStorage.getItem(KEY);
  if (credential) headers.Authorization = `Bearer ${credential}`;
  if (body) headers["Content-Type"] = "application/json";
  if (key) headers["Idempotency-Key"] = key;
  let answer, text;
  try {
    answer = await fetch(path, { method, headers, body: body && JSON.stringify(body) });
    text = await answer.text();
  } catch {
    const unknown = new Refused({ detail: "The server cannot be reached. Nothing is done twice if you try again." });
    unknown.again = true;
    throw unknown;
  }
  let parsed = null;
  try { parsed = parse(text); } catch { /* not ours: the status says enough */ }
  if (!answer.ok || (text && parsed === null)) throw new Refused(parsed, answer.ok ? 502 : answer.status);
  const next = /<([^>]+)>; rel="next"/.exec(answer.headers.get("Link") ?? "");
  return { body: parsed, next: next?.[1] };
}
