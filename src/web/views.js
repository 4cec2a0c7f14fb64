// Pages with views. The hash of the URL names the view that is shown, such as `#library`, or `#game=1` with an id.

import { bindAccount } from "/assets/account.js";
import { credential, setApiKey } from "/assets/api.js";
import {
  $, bindMessage, clearProblems, focusAfter, runReportingErrors, showError, showMessage,
} from "/assets/page.js";

const SIGN_IN = "sign-in";

/**
 * Shows the views of a page, `home` first. `views` maps the name of each view to a function that loads the view, given
 * the id in the URL. `parents` maps each view that requires an id to the view whose tab it belongs to. `showAccount`
 * shows who is signed in. Returns a function that shows the view where the user was before signing in.
 */
export function bindViews({ views, home, parents, showAccount }) {
  const names = [...Object.keys(views), SIGN_IN];
  /** Hash of the view where the user was before signing in. */
  let origin = `#${home}`;

  /** Runs `task`. If the server no longer accepts the credential, drops the credential and runs `task` again. */
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

  /** Loads a view. Returns the view to show, which is another view if the URL or the user's rights require it. */
  async function load(name, id) {
    try {
      await inSession(() => views[name]?.(id));
      return name;
    } catch (error) {
      if (![401, 403, 404].includes(error.status)) throw error;
      showError(error);
      if (error.status === 401) return SIGN_IN;
      if (error.status === 403) return name;
      await views[home]();
      return home;
    }
  }

  /** Shows the view that the URL names, and returns its heading. */
  async function showView() {
    const { hash } = location;
    const [, name, id] = /^#([a-z-]+)(?:=(\d+))?$/.exec(hash) ?? [null, home];
    const wanted = names.includes(name) && (!Object.hasOwn(parents, name) || id) ? name : home;
    if (wanted !== SIGN_IN) origin = hash || `#${home}`;
    const view = await load(wanted, id);
    // The user has opened another view meanwhile.
    if (hash !== location.hash) return null;
    for (const each of names) $(`${each}-view`).hidden = each !== view;
    for (const tab of document.querySelectorAll(".tabs a")) {
      if (tab.hash === `#${parents[view] ?? view}`) tab.setAttribute("aria-current", "page");
      else tab.removeAttribute("aria-current");
    }
    const title = $(`${view}-title`);
    document.title = `${title.textContent} - revwallet`;
    return title;
  }

  function arrive() {
    if (location.hash === origin) runReportingErrors(showView);
    else location.hash = origin;
  }

  window.addEventListener("hashchange", () => runReportingErrors(() => focusAfter(showView)));
  window.addEventListener("hashchange", () => clearProblems());
  bindMessage();
  bindAccount({ show: showAccount, arrive });
  runReportingErrors(async () => {
    await showView();
    await inSession(showAccount);
  });
  return arrive;
}
