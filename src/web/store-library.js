// The library of the signed-in user, and redeeming activation keys.

import { call, userId } from "/assets/api.js";
import { $, bindButton, bindForm, element, timeElement } from "/assets/page.js";

/** URL of the next page of the library. */
let more = null;

function libraryItem(entry) {
  const link = element("a");
  link.href = `#game=${entry.gameId}`;
  const since = element("span", "Yours since ", "muted small");
  since.append(timeElement(entry.acquiredAt));
  link.append(element("span", entry.title, "title"), element("span", entry.genre, "muted small"), since);
  const item = element("li");
  item.append(link);
  return item;
}

async function loadPage(path) {
  const { body, next } = await call("GET", path);
  const items = body.games.map(libraryItem);
  more = next;
  $("more-library").hidden = !next;
  return items;
}

export async function showLibrary() {
  $("library-sign-in").hidden = userId() !== null;
  $("library-columns").hidden = userId() === null;
  const items = userId() ? await loadPage(`/api/users/${userId()}/library?limit=60`) : [];
  $("library").replaceChildren(...items);
  $("no-library").hidden = items.length > 0;
}

bindButton($("more-library"), async () => $("library").append(...await loadPage(more)));

bindForm("redeem", async ({ key }) => {
  const { body } = await call("POST", "/api/games/redeem", { key: key.trim() });
  const { body: game } = await call("GET", `/api/games/${body.gameId}`);
  return `${game.title} is in your library.`;
}, { refresh: showLibrary });
