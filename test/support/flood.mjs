/**
 * Strangers, from addresses of their own (127.0.1.1 to 127.0.1.8), until the process is ended:
 *
 *     node flood.mjs PORT
 *
 * 1,000 idle ones, who come again when they are sent away; 100 who write a byte a second; 200 a second who reset at once;
 * 100 a second who send garbage. Prints how many there were when its standard input ends.
 */
import { randomBytes } from "node:crypto";
import { connect } from "node:net";

const port = Number(process.argv[2]);
let count = 0;

function stranger(begin) {
  count += 1;
  const socket = connect({ port, host: "127.0.0.1", localAddress: `127.0.1.${1 + (count % 8)}` });
  socket.on("error", () => {});
  socket.once("connect", () => begin(socket));
  return socket;
}

function idle() {
  stranger(() => {})
    .resume()
    .once("close", () => setTimeout(idle, 200));
}

function slow() {
  const socket = stranger(() => {}).resume();
  const beat = setInterval(() => socket.write("x"), 1000);
  socket.once("close", () => {
    clearInterval(beat);
    setTimeout(slow, 200);
  });
}

for (let i = 0; i < 1000; i += 1) setTimeout(idle, i / 2);
for (let i = 0; i < 100; i += 1) slow();
setInterval(() => stranger((socket) => socket.resetAndDestroy()), 5);
setInterval(() => stranger((socket) => socket.resume().end(randomBytes(2000))), 10);
process.stdin.resume().on("end", () => {
  process.stdout.write(`${count}\n`, () => process.exit());
});
