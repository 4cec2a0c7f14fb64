// The account on pages with views: sign in and out, and the user's name in the bar.

import { call, credential, setApiKey, userId } from "/assets/api.js";
import { $, bindButton, bindForm, showMessage } from "/assets/page.js";

/** Shows who is signed in. Returns the user, or null. */
export async function showAccount() {
  const id = userId();
  $("sign-in-link").hidden = credential() !== null;
  $("sign-out").hidden = credential() === null;
  $("who").textContent = credential() ? "API key" : "";
  if (!id) return null;
  const { body: user } = await call("GET", `/api/users/${id}`);
  $("who").textContent = `${user.username ?? user.email} (user ${user.id})`;
  return user;
}

/** Ends the session on this page and, if it has not ended there yet, on the server. */
async function signOut() {
  try {
    if (userId()) await call("POST", "/api/users/logout", {});
  } finally {
    setApiKey(null);
  }
}

/** Signs in with a user name and a password. */
export async function signIn(fields) {
  // The server would refuse a login request with the credential of an ended session.
  setApiKey(null);
  const { body } = await call("POST", "/api/users/login", fields);
  setApiKey(body.token);
}

/** Binds the forms. `show` shows the account; `arrive` shows the view where the user was before signing in. */
export function bindAccount({ show, arrive }) {
  const refresh = async () => {
    await show();
    arrive();
  };
  bindForm("sign-in", async (fields) => {
    await signIn(fields);
    return "You are signed in.";
  }, { refresh });
  bindForm("access", async ({ key }) => {
    setApiKey(key.trim());
    return key.trim() ? "The key is used until this tab is closed." : "No key is used.";
  }, { refresh });
  bindButton($("sign-out"), async () => {
    await signOut().finally(show);
    showMessage("You are signed out.");
    arrive();
  });
}
