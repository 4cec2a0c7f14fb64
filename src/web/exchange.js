// The exchange page: its views, registration, and what only admins see.

import { showAccount, signIn } from "/assets/account.js";
import { call, credential } from "/assets/api.js";
import { showManagement } from "/assets/exchange-admin.js";
import { showOrder } from "/assets/exchange-order.js";
import { showTrade } from "/assets/exchange-trade.js";
import { bindForm, withoutEmpty } from "/assets/page.js";
import { bindViews } from "/assets/views.js";

async function showExchangeAccount() {
  const user = await showAccount();
  // The page does not know the scopes of an API key.
  const mayManage = user ? user.role === "admin" : credential() !== null;
  for (const part of document.querySelectorAll(".for-admin")) part.hidden = !mayManage;
}

const arrive = bindViews({
  views: { trade: showTrade, order: showOrder, manage: showManagement },
  home: "trade",
  parents: { order: "trade" },
  showAccount: showExchangeAccount,
});

bindForm("register", async (fields, key) => {
  await call("POST", "/exchange/register", withoutEmpty(fields), key);
  await signIn({ username: fields.username, password: fields.password });
  return "You are registered and signed in.";
}, {
  refresh: async () => {
    await showExchangeAccount();
    arrive();
  },
});
