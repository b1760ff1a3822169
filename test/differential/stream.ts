/** Our bytes in a case, and what an implementation may deliver of them. */
import {
  hmac,
  P,
  power,
  type RawSession,
  rawMacKeys,
  rawPacket,
  rawSecret,
  rawSessionKeys,
  toBytes,
  toNumber,
} from "../support/raw-peer.ts";
import { bytesOf, type Case, HANDSHAKE, PACKET, type Role } from "./cases.ts";

const FIXED_VALUES = { "1": 1n, "0": 0n, "p-1": P - 1n, p: P, "p+1": P + 1n, max: 2n ** 2048n - 1n };

/** Our part of the handshake. */
export class Handshake {
  readonly nonce: Buffer;
  readonly #case: Case;
  /** The shared secret K. */
  readonly secret: Buffer;
  readonly #exponent: bigint;
  /** Our value, which is computed once for all implementations. */
  readonly #value: bigint;

  constructor(it: Case, keyFile: Buffer) {
    this.#case = it;
    this.secret = rawSecret(keyFile);
    this.nonce = bytesOf(it, "nonce", 32);
    this.#exponent = 2n ** 258n + toNumber(bytesOf(it, "exponent", 32));
    this.#value = it.value === "power" ? power(2n, this.#exponent) : FIXED_VALUES[it.value];
  }

  /** Returns the nonce as it is sent. */
  sentNonce(): Buffer {
    const { handshakeFault: fault } = this.#case;
    return fault?.kind === "flip" ? flipBit(this.nonce, fault.bit) : this.nonce;
  }

  /** Returns both nonces, the client's first. */
  #ordered(own: Buffer, peer: Buffer): Buffer {
    return Buffer.concat(this.#case.role === "client" ? [own, peer] : [peer, own]);
  }

  /** Returns the message of 288 bytes as it is sent, for the daemon's nonce. */
  message(peerNonce: Buffer): Buffer {
    const { handshakeFault: fault } = this.#case;
    if (fault?.kind === "garbage") return bytesOf(this.#case, "garbage", 288);
    const secret = fault?.kind === "wrong-key" ? rawSecret(Buffer.from("another key")) : this.secret;
    const peer = fault?.kind === "other-nonce" ? bytesOf(this.#case, "other nonce", 32) : peerNonce;
    const keys = rawMacKeys(secret, this.#ordered(this.nonce, peer));
    const value = toBytes(this.#value);
    const mac = hmac(keys[fault?.kind === "mac-of-other-side" ? this.#peer : this.#case.role], value);
    const message = Buffer.concat([value, fault?.kind === "mac-zero" ? Buffer.alloc(32) : mac]);
    return fault?.kind === "flip" ? flipBit(message, fault.bit - 8 * this.nonce.length) : message;
  }

  /** Returns true if the daemon's message has the right MAC and a value in range. */
  isValid(peerNonce: Buffer, message: Buffer): boolean {
    const nonces = this.#ordered(this.sentNonce(), peerNonce);
    const key = rawMacKeys(this.secret, nonces)[this.#peer];
    const value = message.subarray(0, 256);
    return hmac(key, value).equals(message.subarray(256)) && toNumber(value) < P;
  }

  /** The keys of the session with this shared value, for what we send and for what we receive. */
  keys(peerNonce: Buffer, shared: bigint): Keys {
    const { up, down } = rawSessionKeys(this.secret, this.#ordered(this.nonce, peerNonce), shared);
    return this.#case.role === "client" ? { own: up, peer: down } : { own: down, peer: up };
  }

  get #peer(): Role {
    return this.#case.role === "client" ? "server" : "client";
  }

  /**
   * Returns the shared values that are possible.
   *
   * @param message - the daemon's message; undefined if it is not here yet.
   */
  sharedValues(message: Buffer | undefined): bigint[] {
    const { configuration, value } = this.#case;
    if (configuration === "weak") return [1n];
    if (value === "0") return [0n];
    if (value === "1") return [1n];
    if (value === "p-1") return [1n, P - 1n];
    // The others are out of range.
    if (value !== "power") return [];
    if (message === undefined) throw new Error("the shared value is not known");
    return [power(toNumber(message.subarray(0, 256)), this.#exponent)];
  }
}

/** The keys of our packets and of the daemon's. */
export interface Keys {
  readonly own: RawSession["up"];
  readonly peer: RawSession["up"];
}

/** A piece of the stream after the handshake. */
interface Piece {
  readonly make: (keys: Keys) => Buffer;
  /** Undefined if the daemon must reject it. */
  readonly data: Buffer | undefined;
}

/** Returns the packets that we send. */
function piecesOf(it: Case): Piece[] {
  const { packetFault: fault } = it;
  const all = it.packets.map((size, number) => bytesOf(it, `packet ${number}`, size));
  /** Returns a piece whose packet has the number of its place, as long as nothing before it was added or left out. */
  const honest = (number: number, shift = 0): Piece => ({
    make: ({ own }) => rawPacket(own, number, all[number]!),
    data: shift === 0 ? all[number] : undefined,
  });
  if (fault === undefined) return all.map((_, number) => honest(number));
  const { at, argument } = fault;
  const wrong = (make: Piece["make"]): Piece => ({ make, data: undefined });
  const sealed = ({ own }: Keys) => rawPacket(own, at, all[at]!);
  const replacement = (): Piece[] => {
    switch (fault.kind) {
      case "flip":
        return [wrong((keys) => flipBit(sealed(keys), argument))];
      case "length":
        return [wrong(({ own }) => rawPacket(own, at, all[at]!, argument))];
      case "number":
        return [wrong(({ own }) => rawPacket(own, at + argument < 0 ? at + 1 : at + argument, all[at]!))];
      case "drop":
        return [];
      case "repeat":
        return [honest(at), wrong(sealed)];
      case "swap":
        return at + 1 < all.length ? [honest(at + 1, 1), honest(at, 1)] : [honest(at)];
      case "random":
        return [wrong(() => bytesOf(it, "random packet", PACKET))];
      case "zeros":
        return [wrong(() => Buffer.alloc(PACKET))];
      case "other-direction":
        return [wrong(({ peer }) => rawPacket(peer, at, all[at]!))];
      case "insert-byte":
        return [wrong((keys) => Buffer.concat([Buffer.from([0]), sealed(keys)]))];
      case "padding":
        return [{ make: ({ own }) => rawPacket(own, at, all[at]!, all[at]!.length, 0xa5), data: all[at] }];
    }
  };
  const before = all.slice(0, at).map((_, number) => honest(number));
  const next = at + (fault.kind === "swap" ? 2 : 1);
  const after = all.slice(next).map((_, i) => honest(next + i, fault.kind === "drop" ? 1 : 0));
  return [...before, ...replacement(), ...after];
}

/** Returns our packets. */
export function packetsOf(it: Case, keys: Keys): Buffer {
  return Buffer.concat(piecesOf(it).map(({ make }) => make(keys)));
}

/** What a daemon that has received a part of our stream must make of it. */
export interface Meaning {
  /** `valid` if we have proved that we hold the key; `incomplete` if fewer than 320 bytes were sent. */
  readonly proof: "valid" | "invalid" | "incomplete";
  /** All data in the packets before the first wrong one. */
  readonly data: Buffer;
  /** How the stream of packets ends: with a wrong packet, inside a packet, or between two. */
  readonly stream: "wrong" | "truncated" | "whole";
}

/** @param sent - the number of bytes that we have sent. */
export function meaningOf(it: Case, sent: number): Meaning {
  const { configuration, value, handshakeFault, length } = it;
  const rejected =
    ["p", "p+1", "max"].includes(value) || (configuration === "forward-secrecy" && value === "1");
  const nothing = { data: Buffer.alloc(0), stream: "whole" } as const;
  if (sent < HANDSHAKE) return { proof: "incomplete", ...nothing };
  if (rejected || handshakeFault !== undefined || length < HANDSHAKE) return { proof: "invalid", ...nothing };
  const unchanged = Math.min(sent, length) - HANDSHAKE;
  const data: Buffer[] = [];
  let position = 0;
  for (const piece of piecesOf(it)) {
    const end = position + PACKET;
    if (piece.data === undefined || end > unchanged) break;
    data.push(piece.data);
    position = end;
  }
  const left = sent - HANDSHAKE - position;
  const stream = left === 0 ? "whole" : left < PACKET ? "truncated" : "wrong";
  return { proof: "valid", data: Buffer.concat(data), stream };
}

/** Returns a copy with one bit flipped; an unchanged copy if the bit is outside. */
function flipBit(bytes: Buffer, bit: number): Buffer {
  const copy = Buffer.from(bytes);
  if (bit >= 0 && bit < 8 * copy.length) copy[bit >> 3]! ^= 0x80 >> (bit & 7);
  return copy;
}
