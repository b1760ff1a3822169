/** The protocol, in as few words as it takes: what README.md describes as pseudo-code. */
import { createCipheriv, createHash, createHmac, getDiffieHellman } from "node:crypto";

export const NONCE_BYTES = 32;
export const MESSAGE_BYTES = 288;
export const DATA_BYTES = 1024;
export const PACKET_BYTES = 1060;

/** The prime of RFC 3526's group 14. */
export const P = BigInt(`0x${getDiffieHellman("modp14").getPrime("hex")}`);

const hmac = (key, ...parts) => createHmac("sha256", key).update(Buffer.concat(parts)).digest();
export const toBytes = (value) => Buffer.from(value.toString(16).padStart(512, "0"), "hex");
export const toNumber = (bytes) => BigInt(`0x${bytes.toString("hex")}`);
export const otherSide = (side) => (side === "client" ? "server" : "client");

/** Returns K. */
export const secretOf = (keyFile) => createHash("sha256").update(keyFile).digest();

function power(base, exponent) {
  let result = 1n;
  for (let e = exponent, b = base % P; e > 0n; e >>= 1n, b = (b * b) % P)
    if (e & 1n) result = (result * b) % P;
  return result;
}

/** PBKDF2 with one iteration: blocks of 32 bytes. */
const derive = (key, salt, blocks) =>
  Array.from({ length: blocks }, (_, i) => hmac(key, salt, Buffer.of(0, 0, 0, i + 1)));

/** Returns 2^(2^258 + x) mod p. */
export const publicValue = (x) => power(2n, 2n ** 258n + toNumber(x));

/** Returns y and its MAC with the key of `side`. */
export function makeMessage(K, side, nonces, y) {
  const keys = derive(K, Buffer.concat([nonces.client, nonces.server]), 2);
  return Buffer.concat([y, hmac(keys[side === "client" ? 0 : 1], y)]);
}

/** Returns true if the 288 bytes are a message of `side`: its MAC is right, and y is less than p. */
export const isMessage = (K, side, nonces, bytes) =>
  makeMessage(K, side, nonces, bytes.subarray(0, 256)).equals(bytes) && toNumber(bytes.subarray(0, 256)) < P;

/**
 * Returns the values that two sides may share: that of a side which sent `y`, made from `x` if that is known, and of
 * its peer, which sent `peerY`. For some values without a known exponent there are two, by the parity of the peer's.
 */
export function sharedValues(y, x, peerY) {
  if (x !== undefined) return [power(peerY, 2n ** 258n + toNumber(x))];
  if (peerY === 1n) return [1n];
  if (y === 0n || y === 1n) return [y];
  if (y === P - 1n) return [1n, P - 1n];
  // 2 is 2^1, and p - 2 is -2.
  if (y === 2n) return [peerY];
  if (y === P - 2n) return [peerY, P - peerY];
  throw new Error("the shared value is not known");
}

/** Returns the keys of both directions, by the side that sends. */
export function sessionKeys(K, nonces, shared) {
  const salt = Buffer.concat([nonces.client, nonces.server, toBytes(shared)]);
  const [ec, hc, es, hs] = derive(K, salt, 4);
  return { client: { encrypt: ec, mac: hc }, server: { encrypt: es, mac: hs } };
}

function counterBlock(number) {
  const block = Buffer.alloc(16);
  block.writeBigUInt64BE(number);
  return block;
}

const crypt = (keys, number, bytes) =>
  createCipheriv("aes-256-ctr", keys.encrypt, counterBlock(number)).update(bytes);
const macOf = (keys, number, ciphertext) => hmac(keys.mac, ciphertext, counterBlock(number).subarray(0, 8));

/** Returns packet `number`, whose length field may lie and whose padding may be any byte. */
export function seal(keys, number, data, { length = data.length, padding = 0 } = {}) {
  const plain = Buffer.alloc(DATA_BYTES + 4, padding);
  data.copy(plain);
  plain.writeUInt32BE(length, DATA_BYTES);
  const ciphertext = crypt(keys, number, plain);
  return Buffer.concat([ciphertext, macOf(keys, number, ciphertext)]);
}

/** Returns the data of packet `number`; undefined if its MAC or its length is wrong. */
export function open(keys, number, packet) {
  const ciphertext = packet.subarray(0, DATA_BYTES + 4);
  if (!macOf(keys, number, ciphertext).equals(packet.subarray(DATA_BYTES + 4))) return undefined;
  const plain = crypt(keys, number, ciphertext);
  const length = plain.readUInt32BE(DATA_BYTES);
  return length >= 1 && length <= DATA_BYTES ? plain.subarray(0, length) : undefined;
}

/** Returns data as packets of up to 1024 bytes, from packet `first` on. */
export function sealAll(keys, data, first = 0n) {
  const packets = [];
  for (let start = 0; start < data.length; start += DATA_BYTES)
    packets.push(seal(keys, first + BigInt(packets.length), data.subarray(start, start + DATA_BYTES)));
  return Buffer.concat(packets);
}
