// API client: keeps decimals exact, and sends the credential and the idempotency key.

const API_KEY_ITEM = "revwallet.key";

export function setApiKey(key) {
  if (key) sessionStorage.setItem(API_KEY_ITEM, key);
  else sessionStorage.removeItem(API_KEY_ITEM);
}

/** The API key or token of this tab, or null. */
export function credential() {
  return sessionStorage.getItem(API_KEY_ITEM);
}

/** Id of the signed-in user: the claim `sub` of the token. Null with an API key, or without a credential. */
export function userId() {
  const claims = credential()?.split(".")[1];
  try { return JSON.parse(atob(claims.replaceAll("-", "+").replaceAll("_", "/"))).sub ?? null; } catch { return null; }
}

/** A failed request, with the API's error message. */
export class ApiError extends Error {
  constructor(problem, status) {
    super(problem?.detail ?? `The server answered ${status}.`);
    this.status = status;
    this.problem = problem ?? {};
    this.errors = problem?.errors ?? [];
    // Without a clear rejection (4xx), the request may have taken effect.
    this.mayHaveSucceeded = !(status >= 400 && status < 500);
  }
}

/** Matches a string or a number in JSON. Strings are matched so that numbers within them are not. */
const TOKEN = /"[^"\\]*(?:\\.[^"\\]*)*"|-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/g;

/** Parses JSON but keeps every number as text, because a double would round large amounts. */
function parseExact(text) {
  return text ? JSON.parse(text.replace(TOKEN, (token) => token[0] === '"' ? token : `"${token}"`)) : null;
}

/** Returns a random idempotency key. Unlike crypto.randomUUID, this also works without HTTPS. */
export function newIdempotencyKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Sends a request with the credential of this tab. Returns the response, and its content, which `read` extracts. */
async function send(path, { method, headers, body }, read) {
  if (credential()) headers.Authorization = `Bearer ${credential()}`;
  try {
    const response = await fetch(path, { method, headers, body });
    return [response, await read(response)];
  } catch {
    const error = new ApiError({ detail: "Cannot reach the server. Try again: a request is never applied twice." });
    error.mayHaveSucceeded = true;
    throw error;
  }
}

function tryParse(text) {
  // A response that does not come from the API may not be JSON. The error then shows only the status.
  try { return parseExact(text); } catch { return null; }
}

/** Gets a document of any length as a blob, which the browser stores. */
export async function getDocument(path, type) {
  const headers = { Accept: type };
  const [response, content] = await send(path, { method: "GET", headers }, (response) => response.blob());
  if (!response.ok) throw new ApiError(tryParse(await content.text()), response.status);
  return content;
}

/** Calls the API. Returns the body, the URL of the next page, and the server's time in milliseconds. */
export async function call(method, path, body, idempotencyKey) {
  const headers = {};
  if (body) headers["Content-Type"] = "application/json";
  if (idempotencyKey) headers["Idempotency-Key"] = idempotencyKey;
  const request = { method, headers, body: body && JSON.stringify(body) };
  const [response, text] = await send(path, request, (response) => response.text());
  const parsed = tryParse(text);
  if (!response.ok || (text && parsed === null)) throw new ApiError(parsed, response.ok ? 502 : response.status);
  const next = /<([^>]+)>; rel="next"/.exec(response.headers.get("Link") ?? "");
  const at = Date.parse(response.headers.get("Date") ?? "") || Date.now();
  return { body: parsed, next: next?.[1], at };
}
