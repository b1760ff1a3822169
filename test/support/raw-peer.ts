/**
 * A simple client of the protocol that uses none of the project's code, so that it can also do what an honest client
 * does not.
 */
import {
  createCipheriv,
  createDecipheriv,
  createHash,
  createHmac,
  getDiffieHellman,
  randomBytes,
} from "node:crypto";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import type { Socket } from "node:net";

export const P = BigInt(`0x${getDiffieHellman("modp14").getPrime("hex")}`);

export const toBytes = (value: bigint) => Buffer.from(value.toString(16).padStart(512, "0"), "hex");
export const toNumber = (bytes: Buffer) => BigInt(`0x${bytes.toString("hex")}`);
export const hmac = (key: Buffer, ...parts: Buffer[]) =>
  createHmac("sha256", key).update(Buffer.concat(parts)).digest();

export function power(base: bigint, exponent: bigint): bigint {
  let result = 1n;
  for (let e = exponent, b = base % P; e > 0n; e >>= 1n, b = (b * b) % P)
    if (e & 1n) result = (result * b) % P;
  return result;
}

/** PBKDF2 with one iteration. */
function expand(key: Buffer, salt: Buffer, blocks: number): Buffer[] {
  return Array.from({ length: blocks }, (_, i) => hmac(key, salt, Buffer.from([0, 0, 0, i + 1])));
}

/** Returns the shared secret K for the contents of a key file. */
export const rawSecret = (contents: Buffer): Buffer => createHash("sha256").update(contents).digest();

/**
 * Returns the keys with which the two sides authenticate their handshake messages.
 *
 * @param nonces - the client's nonce, then the server's.
 */
export function rawMacKeys(secret: Buffer, nonces: Buffer): { client: Buffer; server: Buffer } {
  const [client, server] = expand(secret, nonces, 2) as [Buffer, Buffer];
  return { client, server };
}

/** Returns the keys of a session for the shared Diffie-Hellman value. */
export function rawSessionKeys(secret: Buffer, nonces: Buffer, shared: bigint): RawSession {
  const salt = Buffer.concat([nonces, toBytes(shared)]);
  const [ec, hc, es, hs] = expand(secret, salt, 4) as [Buffer, Buffer, Buffer, Buffer];
  return { up: { encrypt: ec, mac: hc }, down: { encrypt: es, mac: hs } };
}

/** Reads exactly `size` bytes, or none or fewer if the peer closes first. */
export async function readBytes(socket: Socket, size: number): Promise<Buffer> {
  for (;;) {
    const bytes = socket.read(size) as Buffer | null;
    if (bytes !== null) return bytes;
    if (socket.destroyed || socket.readableEnded) return Buffer.alloc(0);
    const waiting = new AbortController();
    const { signal } = waiting;
    const events = ["readable", "end", "close"].map((name) => once(socket, name, { signal }));
    await Promise.race(events).catch(() => {});
    // Removes the listeners of the events that have not happened.
    waiting.abort();
  }
}

/** A session's keys: `up` for packets from the client, `down` for packets from the server. */
export interface RawSession {
  readonly up: { readonly encrypt: Buffer; readonly mac: Buffer };
  readonly down: { readonly encrypt: Buffer; readonly mac: Buffer };
}

export interface RawOptions {
  /** The public value to send instead of a valid one; the shared value is then computed as for exponent 1. */
  readonly y?: bigint;
  /** Changes the message before it is sent. */
  readonly tamper?: (message: Buffer) => Buffer;
  /** Delay before the message is sent, in ms, to simulate a round trip. */
  readonly delay?: number;
}

/** Runs a client's part of the handshake. Resolves with undefined if the server closes the connection instead. */
export async function rawHandshake(
  socket: Socket,
  keyFile: string,
  options: RawOptions = {},
): Promise<RawSession | undefined> {
  const key = rawSecret(readFileSync(keyFile));
  const nonce = randomBytes(32);
  socket.write(nonce);
  const nonces = Buffer.concat([nonce, await readBytes(socket, 32)]);
  const macKeys = rawMacKeys(key, nonces);
  const exponent = 2n ** 258n + toNumber(randomBytes(32));
  const y = toBytes(options.y ?? power(2n, exponent));
  const message = Buffer.concat([y, hmac(macKeys.client, y)]);
  if (options.delay !== undefined) await new Promise((done) => setTimeout(done, options.delay));
  socket.write(options.tamper?.(message) ?? message);
  const answer = await readBytes(socket, 288);
  if (answer.length < 288) return undefined;
  const serverValue = answer.subarray(0, 256);
  if (!hmac(macKeys.server, serverValue).equals(answer.subarray(256)))
    throw new Error("the server's tag is wrong");
  // For y = 0 and y = 1 the shared value does not depend on the server's exponent.
  const shared = options.y === undefined ? power(toNumber(serverValue), exponent) : options.y;
  return rawSessionKeys(key, nonces, shared);
}

const counter = (number: number) => {
  const block = Buffer.alloc(16);
  block.writeBigUInt64BE(BigInt(number));
  return block;
};

/** Returns a packet; `length` may differ from that of the data, and `padding` from zero. */
export function rawPacket(
  keys: RawSession["up"],
  number: number,
  data: Buffer | string,
  length = data.length,
  padding = 0,
): Buffer {
  const padded = Buffer.alloc(1028, padding);
  Buffer.from(data).copy(padded, 0, 0, 1024);
  padded.writeUInt32BE(length, 1024);
  const ciphertext = createCipheriv("aes-256-ctr", keys.encrypt, counter(number)).update(padded);
  return Buffer.concat([ciphertext, hmac(keys.mac, ciphertext, counter(number).subarray(0, 8))]);
}

/** Returns the data of a received packet. */
export function rawOpen(keys: RawSession["down"], number: number, packet: Buffer): Buffer {
  const ciphertext = packet.subarray(0, 1028);
  if (!hmac(keys.mac, ciphertext, counter(number).subarray(0, 8)).equals(packet.subarray(1028)))
    throw new Error("bad tag");
  const padded = createDecipheriv("aes-256-ctr", keys.encrypt, counter(number)).update(ciphertext);
  return padded.subarray(0, padded.readUInt32BE(1024));
}
