/** Our side of a connection to a program under test: plays a handshake from its description, then packets. */
import { randomBytes } from "node:crypto";
import { Failure } from "./channel.mjs";
import {
  DATA_BYTES,
  isMessage,
  makeMessage,
  NONCE_BYTES,
  open,
  otherSide,
  PACKET_BYTES,
  publicValue,
  sealAll,
  secretOf,
  sessionKeys,
  sharedValues,
  toBytes,
  toNumber,
} from "./protocol.mjs";

const fromHex = (hex) => Buffer.from(hex, "hex");

/** Returns the description of a correct peer: with a random exponent, or weak, which is y = 1. */
export function honest({ weak = false } = {}) {
  if (weak) return { y: toBytes(1n).toString("hex") };
  const x = randomBytes(32);
  return { y: toBytes(publicValue(x)).toString("hex"), private_x: x.toString("hex") };
}

/** Sends all in one piece. */
export const WHOLE = (channel, bytes) => channel.write(bytes);

/**
 * Plays a handshake up to our message.
 *
 * @param link - a connection to the program under test.
 * @param keyFile - contents of the key file that the program has.
 * @param madeOf - what to send, as in handshakes.json.
 * @param nonce - ours; random by default.
 * @param send - how to send bytes.
 * @param after - bytes to send in the same piece after our message, made from the nonces.
 */
export async function play(
  { side, wire },
  keyFile,
  madeOf,
  { nonce = randomBytes(NONCE_BYTES), send = WHOLE, after } = {},
) {
  const us = otherSide(side);
  const {
    mac_key_file,
    mac_nonce,
    mac_side,
    zero_mac,
    flip,
    mask = 1,
    cut = Number.POSITIVE_INFINITY,
  } = madeOf;
  const sentNonce = Buffer.from(nonce);
  if (flip < NONCE_BYTES) sentNonce[flip] ^= mask;
  await send(wire, sentNonce.subarray(0, cut));
  if (cut <= NONCE_BYTES) wire.end();
  const peerNonce = await wire.read(NONCE_BYTES, "nonce");
  if (peerNonce.length < NONCE_BYTES) throw new Failure(`sends ${peerNonce.length} bytes instead of a nonce`);
  const signed = { [us]: nonce, [side]: mac_nonce === undefined ? peerNonce : fromHex(mac_nonce) };
  const K = secretOf(mac_key_file === undefined ? keyFile : fromHex(mac_key_file));
  const message = makeMessage(K, mac_side ?? us, signed, fromHex(madeOf.y));
  if (zero_mac) message.fill(0, 256);
  if (flip >= NONCE_BYTES) message[flip - NONCE_BYTES] ^= mask;
  const nonces = { [us]: sentNonce, [side]: peerNonce };
  if (cut > NONCE_BYTES) {
    await send(
      wire,
      Buffer.concat([message.subarray(0, cut - NONCE_BYTES), after?.(nonces) ?? Buffer.alloc(0)]),
    );
    if (cut < NONCE_BYTES + message.length) wire.end();
  }
  return { nonces, message };
}

/** Reads the program's message and returns the possible keys of the session. */
export async function finish({ side, wire }, keyFile, madeOf, nonces, { weak = false } = {}) {
  const K = secretOf(keyFile);
  const answer = await wire.read(288, "message with y");
  if (answer.length < 288)
    throw new Failure(`closes the connection after ${answer.length} bytes instead of sending its y and MAC`);
  if (!isMessage(K, side, nonces, answer)) throw new Failure("its y is not below p, or has a wrong MAC");
  const theirs = toNumber(answer.subarray(0, 256));
  if (weak !== (theirs === 1n))
    throw new Failure(weak ? "-f sends a y other than 1" : "sends y = 1 without -f");
  const x = madeOf.private_x === undefined ? undefined : fromHex(madeOf.private_x);
  return sharedValues(toNumber(fromHex(madeOf.y)), x, theirs).map((shared) => sessionKeys(K, nonces, shared));
}

/** Reads packets until `size` bytes of data have arrived, or the stream is over; returns the data and its sizes. */
export async function readPackets(wire, keys, size, first = 0n) {
  const data = [];
  let left = size;
  let number = first;
  while (left > 0) {
    const packet = await wire.read(PACKET_BYTES, `packet ${number}`);
    if (packet.length === 0) break;
    if (packet.length < PACKET_BYTES) throw new Failure(`its stream ends inside packet ${number}`);
    const opened = open(keys, number, packet);
    if (opened === undefined) throw new Failure(`packet ${number} has a wrong MAC or length`);
    data.push(opened);
    left -= opened.length;
    number += 1n;
  }
  return { data: Buffer.concat(data), sizes: data.map(({ length }) => length), next: number };
}

/** Throws unless the bytes are equal. */
export function expectEqual(got, expected, what) {
  if (!got.equals(expected))
    throw new Failure(`${what}: ${got.length} bytes that differ from the ${expected.length} sent`);
}

/** A session after its handshake. */
export class Session {
  link;
  plain;
  /** Keys of the packets that we send, and of those that the program sends. */
  ours;
  theirs;

  constructor(link, plain, keys) {
    this.link = link;
    this.plain = plain;
    this.ours = keys[otherSide(link.side)];
    this.theirs = keys[link.side];
  }

  /** Numbers of the next packets in both directions. */
  sent = 0n;
  received = 0n;

  /** Sends data in packets. */
  send(data) {
    this.link.wire.write(sealAll(this.ours, data, this.sent));
    this.sent += BigInt(Math.ceil(data.length / DATA_BYTES));
  }

  /** Reads the data of `size` bytes. */
  async receive(size) {
    const { data, sizes, next } = await readPackets(this.link.wire, this.theirs, size, this.received);
    this.received = next;
    return { data, sizes };
  }

  /** Exchanges a message in each direction. */
  async exchange() {
    const [up, down] = [randomBytes(100), randomBytes(1500)];
    this.plain.write(up);
    expectEqual((await this.receive(up.length)).data, up, "data to the peer");
    this.send(down);
    expectEqual(await this.plain.read(down.length, "data of the peer"), down, "data of the peer");
  }

  /** Ends both directions, ours first. */
  async close() {
    this.link.wire.end();
    // The standard output of spipe ends when spipe exits, which it does when both directions have ended.
    if (this.link.exit !== undefined) this.plain.end();
    const rest = await this.plain.readAll("end of the plaintext side");
    if (rest.length > 0) throw new Failure(`delivers ${rest.length} bytes that were not sent`);
    if (!this.plain.ended) throw new Failure(`ends the plaintext side with ${this.plain.error?.code}`);
    this.plain.end();
    const more = await this.link.wire.readAll("end of the connection");
    if (more.length > 0) throw new Failure(`sends ${more.length} bytes after its data`);
    if (!this.link.wire.ended) throw new Failure(`ends the connection with ${this.link.wire.error?.code}`);
  }
}

/** Opens a session as an honest peer, or as described. */
export async function openSession(link, keyFile, { madeOf = honest(), weak = false, ...how } = {}) {
  const { nonces } = await play(link, keyFile, madeOf, how);
  const candidates = await finish(link, keyFile, madeOf, nonces, { weak });
  if (candidates.length === 1) return new Session(link, await link.plain(), candidates[0]);
  // The program's first packet shows which keys it has.
  const plain = await link.plain();
  const probe = Buffer.from("probe");
  plain.write(probe);
  const packet = await link.wire.read(PACKET_BYTES, "packet 0");
  const keys = candidates.find((each) => open(each[link.side], 0n, packet)?.equals(probe));
  if (keys === undefined) throw new Failure("packet 0 opens with none of the keys that the session can have");
  const session = new Session(link, plain, keys);
  session.received = 1n;
  return session;
}

/** A refused connection that is open for longer was closed by a timeout, or on purpose, in ms. */
const PROMPT_MS = 2500;

/**
 * Expects that the program refuses us silently: it sends nothing but what it had to, and closes.
 *
 * @param mayAnswer - true if it may have sent its message before it saw ours, as a client does.
 * @param note - reports a difference that the protocol allows.
 */
export async function expectRefusal(link, keyFile, nonces, { mayAnswer, note }) {
  const start = performance.now();
  const rest = await link.wire.readAll("end of the connection");
  const isAnswer = mayAnswer && rest.length === 288 && isMessage(secretOf(keyFile), link.side, nonces, rest);
  if (rest.length > 0 && !isAnswer) throw new Failure(`sends ${rest.length} bytes to a peer that it refuses`);
  if (performance.now() - start > PROMPT_MS) note("closes a refused connection only after a delay");
}
