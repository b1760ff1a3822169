/**
 * Sends handshakes with a wrong key from eight addresses (127.0.2.1 to 127.0.2.8) until standard input ends:
 *
 *     node wrong-handshakes.mjs PORT RATE
 *
 * Then prints a line of JSON: the number of connections, and how many of them were closed before the server's nonce.
 */
import { randomBytes } from "node:crypto";
import { connect } from "node:net";

const [port, rate] = process.argv.slice(2).map(Number);
let count = 0;
let refused = 0;

function wrongHandshake() {
  count += 1;
  const socket = connect({ port, host: "127.0.0.1", localAddress: `127.0.2.${1 + (count % 8)}` });
  let gotNonce = false;
  socket.on("error", () => {});
  socket.on("close", () => {
    if (!gotNonce) refused += 1;
  });
  socket.once("data", () => {
    gotNonce = true;
  });
  socket.write(randomBytes(320));
}

const start = performance.now();
setInterval(() => {
  while (count < ((performance.now() - start) / 1000) * rate) wrongHandshake();
}, 2);
process.stdin.resume().on("end", () => {
  process.stdout.write(`${JSON.stringify({ count, refused })}\n`, () => process.exit());
});
