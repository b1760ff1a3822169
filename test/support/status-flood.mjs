/**
 * Opens useless connections to a status address until the process is killed:
 *
 *     node status-flood.mjs PORT|PATH
 *
 * 1,000 idle ones, 50 that write a byte every 300 ms, 50 that announce a body and send none, and 50 that request the
 * metrics and do not read them. Each reconnects when it is closed. Prints "ready" after 1,150 connects.
 */
import { connect } from "node:net";

const place = process.argv[2];
const where = place.startsWith("/") ? { path: place } : { host: "127.0.0.1", port: Number(place) };
let connected = 0;

function hold(begin) {
  const socket = connect(where);
  socket.on("error", () => {});
  socket.once("connect", () => {
    connected += 1;
    if (connected === 1150) process.stdout.write("ready\n");
    begin(socket);
  });
  socket.once("close", () => setTimeout(hold, 500, begin));
}

const idle = (socket) => socket.resume();
const slow = (socket) => {
  const beat = setInterval(() => socket.write("G"), 300);
  socket.resume().once("close", () => clearInterval(beat));
};
const withBody = (socket) =>
  socket.resume().write("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n");
const unread = (socket) => socket.write("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(20));

for (let i = 0; i < 1000; i += 1) hold(idle);
for (const kind of [slow, withBody, unread]) for (let i = 0; i < 50; i += 1) hold(kind);
