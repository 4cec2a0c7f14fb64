// The live page: messages of a game event as they happen, and the leaders beside them.

import { $, element } from "/assets/page.js";
import { openSocket } from "/assets/socket.js";

const MESSAGES_MAX = 200;
/** Shortest time between two reads of the leaders. */
const LEADERS_MS = 1000;

const EVENTS = {
  "gameprogress-event": { name: "Game progress", button: "gameprogress-btn" },
  "leaderboard-game-event": { name: "Leaderboard", button: "leaderboard-btn" },
};

const state = { topic: "gameprogress-event", position: null, lostAt: null };

function localTime(at) {
  return new Date(at).toLocaleTimeString();
}

/** Appends a line. If the end of the list was in view before, scrolls to the new line. */
function append(text, className) {
  const scroll = $("scroll");
  const atEnd = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 40;
  const list = $("messages");
  list.append(element("li", text, className));
  while (list.children.length > MESSAGES_MAX) list.firstElementChild.remove();
  $("no-messages").hidden = true;
  if (atEnd) scroll.scrollTop = scroll.scrollHeight;
}

function messageOf({ data }) {
  return data.message ?? data.payload?.message ?? JSON.stringify(data.payload ?? data);
}

function showState() {
  const line = $("state");
  line.classList.toggle("stale", state.lostAt !== null);
  line.textContent = state.lostAt === null
    ? "Live."
    : `Disconnected since ${localTime(state.lostAt)}: what you see may be out of date. Reconnecting...`;
}

function subscribe() {
  const frame = { action: "subscribe", topic: state.topic };
  if (state.position) frame.after = state.position;
  socket.send(frame);
}

function change(topic) {
  if (topic === state.topic) return;
  socket.send({ action: "unsubscribe", topic: state.topic });
  state.topic = topic;
  state.position = null;
  for (const [name, { button }] of Object.entries(EVENTS)) {
    $(button).setAttribute("aria-pressed", String(name === topic));
  }
  $("current").textContent = `Currently in the game event: ${EVENTS[topic].name}`;
  append(`Changed to the game event: ${EVENTS[topic].name}`, "change");
  subscribe();
}

function receive(frame) {
  if (frame.topic) {
    if (frame.topic !== state.topic) return;
    state.position = frame.position;
    append(`${localTime(frame.at)}: ${messageOf(frame)}`);
    scheduleLeaders();
  } else if (frame.error === "unrecoverable") {
    state.position = null;
    append("Some messages were missed.", "change");
    subscribe();
  } else if (frame.error) {
    append(`The server refused: ${frame.details}`, "change");
  } else if (frame.message?.startsWith("Subscribed")) {
    state.lostAt = null;
    showState();
  }
}

let leadersTimer = null;

/** Schedules a read of the leaders, unless a read is already scheduled. */
function scheduleLeaders() {
  leadersTimer ??= setTimeout(async () => {
    leadersTimer = null;
    await loadLeaders();
  }, LEADERS_MS);
}

/** Formats minor units as a decimal. Returns an empty text if `minor` is undefined, because the balance is hidden. */
function decimal(minor, places) {
  if (minor === undefined) return "";
  const digits = String(minor).padStart(places + 1, "0");
  return places ? `${digits.slice(0, -places)}.${digits.slice(-places)}` : digits;
}

async function loadLeaders() {
  let entries, decimals;
  try {
    const response = await fetch("/api/leaderboard?limit=10");
    ({ entries, decimals } = response.ok ? await response.json() : { entries: [] });
  } catch { /* the connection is reported by the state line */ return; }
  $("board").hidden = entries.length === 0;
  $("leaders").replaceChildren(...entries.map((entry) => {
    const row = element("tr");
    row.append(
      element("td", entry.rank),
      element("td", entry.userId),
      element("td", decimal(entry.balance, decimals), "number"),
    );
    return row;
  }));
}

for (const [topic, { button }] of Object.entries(EVENTS)) {
  $(button).addEventListener("click", () => change(topic));
}
const socket = openSocket({
  opened: () => {
    subscribe();
    scheduleLeaders();
  },
  received: receive,
  lost: () => {
    state.lostAt ??= Date.now();
    showState();
  },
});
