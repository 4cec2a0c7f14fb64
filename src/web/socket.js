// A connection to /ws that reconnects when it is lost.

import { credential } from "/assets/api.js";

/** Backoff before each attempt to reconnect. */
const RECONNECT_MS = [250, 500, 1000, 2000, 5000];

/**
 * Connects, with the credential of this tab. Calls `opened` for each connection, `received` with each frame, and `lost` when
 * a connection ends. Returns functions that send a frame and that end the connection for good.
 */
export function openSocket({ opened, received, lost }) {
  let socket = null;
  let attempts = 0;
  let timer = null;

  function send(frame) {
    if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify(frame));
  }

  function connect() {
    const url = new URL("/ws", location.href);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    const own = new WebSocket(url);
    socket = own;
    own.addEventListener("open", () => {
      const token = credential();
      if (token) send({ action: "authenticate", token });
      opened();
    });
    own.addEventListener("message", ({ data }) => {
      if (socket !== own) return;
      const frame = JSON.parse(data);
      if (frame.message?.startsWith("Subscribed")) attempts = 0;
      received(frame);
    });
    own.addEventListener("close", () => {
      if (socket !== own) return;
      lost();
      const pause = RECONNECT_MS[Math.min(attempts, RECONNECT_MS.length - 1)];
      attempts += 1;
      // The random factor keeps clients from reconnecting all at once.
      timer = setTimeout(connect, pause * (0.5 + Math.random()));
    });
  }

  function close() {
    clearTimeout(timer);
    const last = socket;
    socket = null;
    last.close();
  }

  connect();
  return { send, close };
}
