// The store page: its views, and the list of games.

import { call, credential, setApiKey } from "/assets/api.js";
import {
  $, bindButton, bindForm, element, focusAfter, formatAmount, runReportingErrors, showError, showMessage,
} from "/assets/page.js";
import { bindAccount, showAccount } from "/assets/store-account.js";
import { showManagement } from "/assets/store-admin.js";
import { isFree, showGame } from "/assets/store-game.js";
import { showLibrary } from "/assets/store-library.js";

/** URL of the next page of games. */
let moreGames = null;

function gameItem(game) {
  const link = element("a");
  link.href = `#game=${game.gameId}`;
  link.append(
    element("span", game.title, "title"),
    element("span", game.genre, "muted small"),
    element("span", game.description, "about small"),
    element("span", isFree(game.price) ? "Free" : formatAmount(game.price), "cost number"),
  );
  const item = element("li");
  item.append(link);
  return item;
}

/** The query of the search form. */
function searchQuery() {
  const fields = new FormData($("search"));
  const query = new URLSearchParams({ limit: "24" });
  for (const name of ["q", "genre"]) {
    const value = fields.get(name).trim();
    if (value) query.set(name, value);
  }
  if (fields.has("sale")) query.set("sale", "true");
  return query;
}

/** Appends a page of games, and says how many are shown. */
async function showPage(path, isFirst) {
  const { body, next } = await call("GET", path);
  if (isFirst) $("games").replaceChildren();
  $("games").append(...body.games.map(gameItem));
  moreGames = next;
  $("more-games").hidden = !next;
  const count = $("games").children.length;
  if (count === 0) $("found").textContent = "No game is found.";
  else if (next) $("found").textContent = `The first ${count} games`;
  else $("found").textContent = count === 1 ? "1 game" : `${count} games`;
}

function showGames() {
  return showPage(`/api/games?${searchQuery()}`, true);
}

/** Views of the page: each is shown by its hash, `#game=1` with an id. */
const VIEWS = {
  games: showGames,
  game: showGame,
  library: showLibrary,
  "sign-in": () => {},
  manage: showManagement,
};

/** Runs `task`, and once more without the credential if the server no longer accepts it. */
async function inSession(task) {
  try {
    await task();
  } catch (error) {
    if (error.status !== 401 || credential() === null) throw error;
    setApiKey(null);
    await showAccount();
    showMessage("The session is over, or the key is not valid: sign in again.", true);
    await task();
  }
}

/** Where the user was before signing in. */
let origin = "#games";

/** Shows the view that the URL names, and returns its heading. */
async function showView() {
  const [, name, id] = /^#([a-z-]+)(?:=(\d+))?$/.exec(location.hash) ?? [null, "games"];
  const { hash } = location;
  let view = Object.hasOwn(VIEWS, name) && (name !== "game" || id) ? name : "games";
  if (view !== "sign-in") origin = hash || "#games";
  try {
    await inSession(() => VIEWS[view](id));
  } catch (error) {
    if (error.status !== 404) throw error;
    showError(error);
    view = "games";
    await showGames();
  }
  // The user has moved on meanwhile.
  if (hash !== location.hash) return null;
  for (const each of Object.keys(VIEWS)) $(`${each}-view`).hidden = each !== view;
  for (const tab of document.querySelectorAll(".tabs a")) {
    if (tab.hash === `#${view}` || (tab.hash === "#games" && view === "game")) tab.setAttribute("aria-current", "page");
    else tab.removeAttribute("aria-current");
  }
  const title = $(`${view}-title`);
  document.title = `${title.textContent} - revwallet`;
  return title;
}

window.addEventListener("hashchange", () => runReportingErrors(() => focusAfter(showView)));
// A message is about what was done last, and may cover a part of the page: it goes when the user goes on.
for (const event of ["click", "input"]) {
  document.addEventListener(event, ({ target }) => { if (target !== $("say")) $("say").hidden = true; });
}
bindForm("search", () => showGames(), { resets: false });
bindButton($("more-games"), () => showPage(moreGames, false));
bindAccount(() => {
  if (location.hash === origin) runReportingErrors(showView);
  else location.hash = origin;
});

runReportingErrors(async () => {
  await showView();
  await inSession(showAccount);
});
