/**
 * Opens unauthenticated connections from eight addresses (127.0.1.1 to 127.0.1.8) until standard input ends:
 *
 *     node flood.mjs PORT
 *
 * 1,000 idle ones and 100 that write a byte per second, all of which reconnect when they are closed; 200 per second
 * that reset immediately, and 100 per second that send garbage. Prints the number of connections at the end.
 */
import { randomBytes } from "node:crypto";
import { connect } from "node:net";

const port = Number(process.argv[2]);
let count = 0;

function openConnection(begin) {
  count += 1;
  const socket = connect({ port, host: "127.0.0.1", localAddress: `127.0.1.${1 + (count % 8)}` });
  socket.on("error", () => {});
  socket.once("connect", () => begin(socket));
  return socket;
}

function idle() {
  openConnection(() => {})
    .resume()
    .once("close", () => setTimeout(idle, 200));
}

function slow() {
  const socket = openConnection(() => {}).resume();
  const beat = setInterval(() => socket.write("x"), 1000);
  socket.once("close", () => {
    clearInterval(beat);
    setTimeout(slow, 200);
  });
}

for (let i = 0; i < 1000; i += 1) setTimeout(idle, i / 2);
for (let i = 0; i < 100; i += 1) slow();
setInterval(() => openConnection((socket) => socket.resetAndDestroy()), 5);
setInterval(() => openConnection((socket) => socket.resume().end(randomBytes(2000))), 10);
process.stdin.resume().on("end", () => {
  process.stdout.write(`${count}\n`, () => process.exit());
});
