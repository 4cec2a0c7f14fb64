// The balance of the user's wallet on the store page.

import { call, userId } from "/assets/api.js";
import { $, formatAmount } from "/assets/page.js";

/** Number of decimals of each currency, learned from amounts. */
const decimals = new Map();

/** Learns the number of decimals of a currency from an amount, which the API always writes with all of them. */
export function noteDecimals(currency, amount) {
  decimals.set(currency, amount.split(".")[1]?.length ?? 0);
}

/** Formats a nonnegative amount in minor units. */
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
    // Without an open wallet, the user has no balance.
    if (!wallet) return `0 ${body.currency}`;
    noteDecimals(wallet.currency, wallet.balance);
  }
  return `${formatMinor(body.balance, body.currency)} ${body.currency}`;
}

/** The balance in the bar above every view. */
export async function showBalance() {
  $("balance").textContent = userId() ? await readBalance() : "";
}
