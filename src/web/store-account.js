// The account on the store page: sign in and out, and the balance of the user's wallet.

import { call, credential, setApiKey, userId } from "/assets/api.js";
import { $, bindButton, bindForm, formatAmount, showMessage } from "/assets/page.js";

/** Decimals of the currencies whose amounts were seen. */
const decimals = new Map();

/** Learns the decimals of a currency from an amount, which has all of them. */
export function noteDecimals(currency, amount) {
  decimals.set(currency, amount.split(".")[1]?.length ?? 0);
}

/** Formats minor units, which are not negative. */
function formatMinor(minor, currency) {
  const places = decimals.get(currency);
  const digits = minor.padStart(places + 1, "0");
  return formatAmount(places ? `${digits.slice(0, -places)}.${digits.slice(-places)}` : digits);
}

/** Reads the balance of the user's main wallet, in the default currency if none is given. */
export async function readBalance(currency) {
  const query = currency ? `?currency=${encodeURIComponent(currency)}` : "";
  const { body } = await call("GET", `/api/wallet/balance/${userId()}${query}`);
  if (!decimals.has(body.currency)) {
    const { body: [wallet] } = await call("GET", `/wallet?limit=1&currency=${encodeURIComponent(body.currency)}`);
    // A balance is in an open wallet of the user.
    if (!wallet) return `0 ${body.currency}`;
    noteDecimals(wallet.currency, wallet.balance);
  }
  return `${formatMinor(body.balance, body.currency)} ${body.currency}`;
}

/** The balance in the bar above every view. */
export async function showBalance() {
  $("balance").textContent = userId() ? await readBalance() : "";
}

export async function showAccount() {
  const id = userId();
  $("sign-in-link").hidden = credential() !== null;
  $("sign-out").hidden = credential() === null;
  $("who").textContent = credential() ? "API key" : "";
  if (id) {
    const { body: user } = await call("GET", `/api/users/${id}`);
    $("who").textContent = `${user.username ?? user.email} (user ${user.id})`;
  }
  await showBalance();
}

/** Ends the session on this page, and on the server unless it is over there. */
async function signOut() {
  try {
    if (userId()) await call("POST", "/api/users/logout", {});
  } finally {
    setApiKey(null);
    await showAccount();
  }
}

/** Binds the forms; `arrive` shows what the user came from. */
export function bindAccount(arrive) {
  const refresh = async () => {
    await showAccount();
    arrive();
  };
  bindForm("sign-in", async (fields) => {
    // A session that is over must not refuse the request for a new one.
    setApiKey(null);
    const { body } = await call("POST", "/api/users/login", fields);
    setApiKey(body.token);
    return "You are signed in.";
  }, { refresh });
  bindForm("access", async ({ key }) => {
    setApiKey(key.trim());
    return key.trim() ? "The key is used until this tab is closed." : "No key is used.";
  }, { refresh });
  bindButton($("sign-out"), async () => {
    await signOut();
    showMessage("You are signed out.");
    arrive();
  });
}
