/**
 * A small `spiped -F` with one fault, for tests that must notice it:
 *
 *     node faulty-spiped.mjs FAULT -F {-e | -d} -s ADDRESS -t ADDRESS -k FILE [-f | -g] [-o SECONDS]
 *
 * With the fault `none` it is correct. Its protocol is that of the vector kit.
 */
import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import { parseArgs } from "node:util";
import {
  DATA_BYTES,
  isMessage,
  makeMessage,
  otherSide,
  P,
  PACKET_BYTES,
  publicValue,
  seal,
  secretOf,
  sessionKeys,
  sharedValues,
  toBytes,
  toNumber,
} from "../vectors/kit/lib/protocol.mjs";

const [fault, ...args] = process.argv.slice(2);
const has = (name) => fault === name;
const text = { type: "string" };
const flag = { type: "boolean" };
const { values } = parseArgs({
  args,
  options: {
    foreground: { ...flag, short: "F" },
    encrypt: { ...flag, short: "e" },
    decrypt: { ...flag, short: "d" },
    source: { ...text, short: "s" },
    target: { ...text, short: "t" },
    key: { ...text, short: "k" },
    weak: { ...flag, short: "f" },
    strict: { ...flag, short: "g" },
    timeout: { ...text, short: "o", default: "5" },
  },
});
const SIDE = values.decrypt ? "server" : "client";
const PEER = otherSide(SIDE);
const K = secretOf(has("trims-key") ? readFileSync(values.key).subarray(1) : readFileSync(values.key));
const portOf = (address) => Number(address.split(":").at(-1));
const sameExponent = randomBytes(32);
const sameNonce = randomBytes(32);
let sharedNumber = 0n;

/** Reads exact numbers of bytes from a socket; rejects if it ends before. */
function reader(socket) {
  let waiting = Buffer.alloc(0);
  let ended = false;
  let wake = () => {};
  socket.on("data", (chunk) => {
    waiting = Buffer.concat([waiting, chunk]);
    wake();
  });
  socket.on("end", () => {
    ended = true;
    wake();
  });
  socket.on("close", () => {
    ended = true;
    wake();
  });
  return async (size) => {
    const isEnough = () => (has("no-reassembly") ? waiting.length > 0 : waiting.length >= size);
    while (!isEnough() && !ended) {
      await new Promise((resolve) => {
        wake = resolve;
      });
    }
    const bytes = waiting.subarray(0, size);
    waiting = waiting.subarray(bytes.length);
    return bytes;
  };
}

async function readExactly(read, size) {
  const bytes = await read(size);
  if (bytes.length < size) throw new Error("incomplete");
  return bytes;
}

/** Returns the session keys. */
async function handshake(wire, read) {
  const own = has("same-nonce") ? sameNonce : randomBytes(32);
  if (has("waits-for-nonce")) {
    const first = await readExactly(read, 32);
    wire.write(own);
    return exchangeValues(wire, read, { [SIDE]: own, [PEER]: first });
  }
  wire.write(own);
  return exchangeValues(wire, read, { [SIDE]: own, [PEER]: await readExactly(read, 32) });
}

async function exchangeValues(wire, read, nonces) {
  const x = has("same-exponent") ? sameExponent : randomBytes(32);
  const y = values.weak ? 1n : publicValue(x);
  const message = makeMessage(
    K,
    SIDE,
    has("mac-without-nonces") ? { client: Buffer.alloc(32), server: Buffer.alloc(32) } : nonces,
    toBytes(y),
  );
  const answersFirst = SIDE === "client" || has("answers-first");
  if (answersFirst) wire.write(message);
  const theirs = await readExactly(read, 288);
  const theirY = toNumber(theirs.subarray(0, 256));
  const isGenuine =
    isMessage(K, PEER, nonces, theirs) ||
    has("accepts-any-handshake") ||
    (has("no-range-check") &&
      theirY >= P &&
      makeMessage(K, PEER, nonces, theirs.subarray(0, 256)).equals(theirs)) ||
    (has("accepts-reflection") && isMessage(K, SIDE, nonces, theirs)) ||
    (has("compares-half-of-the-mac") &&
      makeMessage(K, PEER, nonces, theirs.subarray(0, 256)).subarray(0, 272).equals(theirs.subarray(0, 272)));
  if (!isGenuine || (has("rejects-zero") && theirY === 0n)) {
    if (has("explains-refusals")) wire.write("wrong key");
    throw new Error("refused");
  }
  if (values.strict && theirY === 1n && !has("ignores-g")) throw new Error("no forward secrecy");
  if (!answersFirst) wire.write(message);
  const [shared] = values.weak ? [1n] : sharedValues(y, x, theirY);
  return sessionKeys(K, nonces, shared);
}

/** Returns the data of a packet; undefined if it must not be accepted. */
function unpack(keys, number, packet) {
  // An empty packet shows the keystream.
  const keystream = seal(keys, number, Buffer.alloc(0)).subarray(0, DATA_BYTES + 4);
  const bytes = Buffer.from(packet.subarray(0, DATA_BYTES + 4)).map((byte, i) => byte ^ keystream[i]);
  const length = bytes.readUInt32BE(DATA_BYTES);
  const isGenuine = seal(keys, number, bytes.subarray(0, DATA_BYTES), { length }).equals(packet);
  if (!isGenuine && !has("no-packet-mac")) return undefined;
  if ((length < 1 || length > DATA_BYTES) && !has("no-length-check")) return undefined;
  const size = Math.min(length, DATA_BYTES);
  if (has("checks-padding") && bytes.subarray(size, DATA_BYTES).some((byte) => byte !== 0)) return undefined;
  return bytes.subarray(0, size);
}

async function receive(read, plain, keys, wire) {
  for (let number = 0n; ; number += 1n) {
    const packet = await read(PACKET_BYTES);
    if (packet.length === 0) break;
    if (packet.length < PACKET_BYTES) {
      if (has("delivers-half-a-packet")) plain.write(packet.subarray(0, DATA_BYTES));
      break;
    }
    let data = unpack(keys[PEER], number, packet);
    if (data === undefined && has("accepts-replays")) {
      for (let n = 0n; n < number; n += 1n) data ??= unpack(keys[PEER], n, packet);
    }
    if (data === undefined && has("skips-bad-packets")) continue;
    if (data === undefined && has("stops-silently")) return;
    if (data === undefined) throw new Error("bad packet");
    plain.write(data);
  }
  if (has("closes-at-half-close")) throw new Error("half-close");
  if (!has("drops-ends")) plain.end();
  if (has("sends-after-the-end")) wire.write("x");
}

function send(plain, wire, keys) {
  let number = 0n;
  const next = () => {
    if (has("shares-counter")) return sharedNumber++;
    return has("repeats-numbers") ? number++ % 2n : number++;
  };
  const pieces = has("long-packets") ? 1025 : 1024;
  plain.on("data", (chunk) => {
    for (let start = 0; start < chunk.length; start += pieces) {
      const data = chunk.subarray(start, start + pieces);
      wire.write(seal(keys[SIDE], next(), data.subarray(0, DATA_BYTES), { length: data.length }));
    }
  });
  plain.on("end", () => {
    if (has("closes-at-the-plaintext-end")) wire.destroy();
    else wire.end();
  });
}

async function serve(accepted) {
  let plain = SIDE === "client" ? accepted : undefined;
  const target = () => connect({ port: portOf(values.target), host: "127.0.0.1", allowHalfOpen: true });
  const wire = SIDE === "client" ? target() : accepted;
  const sockets = [accepted, wire];
  const close = () => {
    for (const socket of sockets) socket.destroy();
  };
  plain?.pause();
  const read = reader(wire);
  const timeout = has("no-timeout") ? undefined : setTimeout(close, Number(values.timeout) * 1000);
  try {
    for (const socket of sockets) socket.on("error", close);
    const keys = await handshake(wire, read);
    clearTimeout(timeout);
    if (plain === undefined) {
      plain = target();
      sockets.push(plain);
      plain.on("error", close);
    }
    const [one, other] = [plain, wire];
    one.on("close", () => setTimeout(() => other.destroy(), 500));
    other.on("close", () => setTimeout(() => one.destroy(), 500));
    send(plain, wire, keys);
    plain.resume();
    await receive(read, plain, keys, wire);
  } catch {
    clearTimeout(timeout);
    if (!has("never-closes")) close();
  }
}

createServer({ allowHalfOpen: true, noDelay: true }, (socket) => void serve(socket)).listen(
  portOf(values.source),
  "127.0.0.1",
);
