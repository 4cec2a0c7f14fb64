// The store page: its views, and the list of games.

import { showAccount } from "/assets/account.js";
import { call } from "/assets/api.js";
import { $, bindButton, bindForm, element, formatAmount } from "/assets/page.js";
import { showManagement } from "/assets/store-admin.js";
import { showBalance } from "/assets/store-balance.js";
import { isFree, showGame } from "/assets/store-game.js";
import { showLibrary } from "/assets/store-library.js";
import { bindViews } from "/assets/views.js";

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

/** Returns the query string for the fields of the search form. */
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

bindForm("search", () => showGames(), { resets: false });
bindButton($("more-games"), () => showPage(moreGames, false));
bindViews({
  views: { games: showGames, game: showGame, library: showLibrary, manage: showManagement },
  home: "games",
  parents: { game: "games" },
  showAccount: async () => {
    await showAccount();
    await showBalance();
  },
});
