/**
 * The handshake (sections 1.2 to 1.7 of the protocol; Tarsnap's `proto_handshake`), as state machines that take
 * bytes and give bytes:
 *
 *     client                                     server
 *       ---- nonce_C (32) ------------------------>       both at once
 *       <--- nonce_S (32) -------------------------
 *       ---- y_C (256) || h_C (32) --------------->       h_C is checked before any exponentiation
 *       <--- y_S (256) || h_S (32) ----------------       sent only after that check
 *
 * Bytes may arrive cut anywhere. What follows the handshake in a chunk is left to the caller.
 */
import { randomBytes, timingSafeEqual } from "node:crypto";
import { EXPONENT_RANDOM_SIZE, Exponent, inRange, ONE, sameValue, VALUE_SIZE } from "./diffie-hellman.ts";
import {
  authenticateValue,
  deriveSessionKeys,
  NONCE_SIZE,
  type Nonces,
  type SessionKeys,
  type Side,
} from "./key-schedule.ts";
import { PACKET_TAG } from "./packet.ts";
import { HandshakeError, type HandshakePart } from "./protocol-error.ts";
import type { Secret } from "./secret.ts";

const MESSAGE_SIZE = VALUE_SIZE + PACKET_TAG;

/** Bytes of a whole handshake, in each direction. */
export const HANDSHAKE_SIZE = NONCE_SIZE + MESSAGE_SIZE;

/** What both sides may choose. */
export interface HandshakeOptions {
  /** `-f`: send 1 instead of a Diffie-Hellman value, giving up forward secrecy (section 1.6). */
  readonly weak?: boolean;
  /** `-g`: refuse a peer that does so. */
  readonly requireForwardSecrecy?: boolean;
  /** Source of randomness, for tests with known values. Asked for the nonce first, then for the exponent. */
  readonly random?: (size: number) => Uint8Array;
}

/** A side's own part: its nonce, its exponent, and the collecting of what the peer sends. */
class Party {
  readonly nonce: Uint8Array;
  readonly #side: Side;
  readonly #options: HandshakeOptions;
  readonly #random: (size: number) => Uint8Array;
  readonly #received = new Uint8Array(HANDSHAKE_SIZE);
  #filled = 0;
  #exponent: Exponent | undefined;

  constructor(side: Side, options: HandshakeOptions) {
    this.#side = side;
    this.#options = options;
    this.#random = options.random ?? randomBytes;
    this.nonce = this.#random(NONCE_SIZE);
  }

  /** Takes bytes up to the end of the handshake; returns how many. */
  collect(bytes: Uint8Array): number {
    const wanted = Math.min(bytes.length, HANDSHAKE_SIZE - this.#filled);
    this.#received.set(bytes.subarray(0, wanted), this.#filled);
    this.#filled += wanted;
    return wanted;
  }

  get hasNonce(): boolean {
    return this.#filled >= NONCE_SIZE;
  }

  get hasMessage(): boolean {
    return this.#filled === HANDSHAKE_SIZE;
  }

  get awaiting(): HandshakePart | undefined {
    if (this.hasMessage) return undefined;
    return this.hasNonce ? "proof" : "nonce";
  }

  get nonces(): Nonces {
    const peer = this.#received.subarray(0, NONCE_SIZE);
    return this.#side === "client"
      ? { client: this.nonce, server: peer }
      : { client: peer, server: this.nonce };
  }

  get #peerValue(): Uint8Array {
    return this.#received.subarray(NONCE_SIZE, NONCE_SIZE + VALUE_SIZE);
  }

  /** True if the peer's message was made with this secret. */
  peerHolds(secret: Secret): boolean {
    const peer = this.#side === "client" ? "server" : "client";
    const expected = authenticateValue(secret, this.nonces, peer, this.#peerValue);
    return timingSafeEqual(expected, this.#received.subarray(NONCE_SIZE + VALUE_SIZE));
  }

  /** The checks that follow the tag's, in the protocol's order. */
  checkPeerValue(): void {
    if (!inRange(this.#peerValue)) {
      throw new HandshakeError("ERR_SPIPED_HANDSHAKE_RANGE", "peer sent a Diffie-Hellman value out of range");
    }
    if (this.#options.requireForwardSecrecy && sameValue(this.#peerValue, ONE)) {
      throw new HandshakeError("ERR_SPIPED_HANDSHAKE_WEAK", "peer offered no forward secrecy");
    }
  }

  /** Chooses the exponent and makes this side's message, y || h. */
  message(secret: Secret): Uint8Array {
    let value = ONE;
    if (!this.#options.weak) {
      const x = this.#random(EXPONENT_RANDOM_SIZE);
      this.#exponent = new Exponent(x);
      x.fill(0);
      value = this.#exponent.publicValue();
    }
    const message = new Uint8Array(MESSAGE_SIZE);
    message.set(value);
    message.set(authenticateValue(secret, this.nonces, this.#side, value), VALUE_SIZE);
    return message;
  }

  /** The session keys, once this side's message is made and the peer's is checked. */
  sessionKeys(secret: Secret): SessionKeys {
    const shared = this.#options.weak ? ONE.slice() : this.#exponent!.sharedValue(this.#peerValue);
    const keys = deriveSessionKeys(secret, this.nonces, shared, this.#side);
    this.destroy();
    return keys;
  }

  destroy(): void {
    this.#exponent?.destroy();
  }
}

function wrongKey(): HandshakeError {
  return new HandshakeError("ERR_SPIPED_HANDSHAKE_MAC", "peer does not hold the same key");
}

/** What came of the bytes given to a client's handshake. */
export interface ClientProgress {
  /** How many of the bytes belonged to the handshake. */
  readonly consumed: number;
  /** Bytes to send now. */
  readonly send?: Uint8Array;
  /** Present when the handshake is complete. */
  readonly session?: SessionKeys;
}

/** The side that opened the connection. */
export class ClientHandshake {
  readonly #party: Party;
  readonly #secret: Secret;
  #sent = false;

  constructor(secret: Secret, options: HandshakeOptions = {}) {
    this.#secret = secret;
    this.#party = new Party("client", options);
  }

  /** The nonce, 32 bytes, to be sent at once, without waiting for the server's. */
  get nonce(): Uint8Array {
    return this.#party.nonce;
  }

  /** What the server has not sent yet, or not whole; undefined once it has sent everything. */
  get awaiting(): HandshakePart | undefined {
    return this.#party.awaiting;
  }

  /**
   * Takes the next bytes from the server.
   *
   * @throws HandshakeError if the server does not hold the key or its value must be refused.
   */
  receive(bytes: Uint8Array): ClientProgress {
    const consumed = this.#party.collect(bytes);
    let send: Uint8Array | undefined;
    if (this.#party.hasNonce && !this.#sent) {
      send = this.#party.message(this.#secret);
      this.#sent = true;
    }
    if (!this.#party.hasMessage) return send === undefined ? { consumed } : { consumed, send };
    if (!this.#party.peerHolds(this.#secret)) throw wrongKey();
    this.#party.checkPeerValue();
    const session = this.#party.sessionKeys(this.#secret);
    return send === undefined ? { consumed, session } : { consumed, send, session };
  }

  /** Forgets the exponent of a handshake that will not be completed. */
  destroy(): void {
    this.#party.destroy();
  }
}

/** What came of the bytes given to a server's handshake. */
export interface ServerProgress {
  /** How many of the bytes belonged to the handshake. */
  readonly consumed: number;
  /** The secret that the client has proved to hold. The client is authenticated; call `respond()` next. */
  readonly verified?: Secret;
  /** True if the client's message has arrived but not all candidates were tried; call `tryMore()` next. */
  readonly undecided?: boolean;
}

/** The side that accepted the connection. Until the client has proved that it holds a key, it costs a few hashes a key. */
export class ServerHandshake {
  readonly #party: Party;
  readonly #candidates: Iterator<Secret>;
  #verified: Secret | undefined;

  /** @param candidates the secrets that a client may hold, the likeliest first; read when its message has arrived. */
  constructor(candidates: Iterable<Secret>, options: HandshakeOptions = {}) {
    this.#candidates = candidates[Symbol.iterator]();
    this.#party = new Party("server", options);
  }

  /** The nonce, 32 bytes, to be sent at once, without waiting for the client's. */
  get nonce(): Uint8Array {
    return this.#party.nonce;
  }

  /** What the client has not sent yet, or not whole; undefined once it has sent everything. */
  get awaiting(): HandshakePart | undefined {
    return this.#party.awaiting;
  }

  /**
   * Takes the next bytes from the client.
   *
   * @param trials how many candidates to try when the client's message is complete.
   * @throws HandshakeError if the client holds none of the keys or its value must be refused.
   */
  receive(bytes: Uint8Array, trials = Number.POSITIVE_INFINITY): ServerProgress {
    const consumed = this.#party.collect(bytes);
    if (!this.#party.hasMessage) return { consumed };
    const verified = this.tryMore(trials);
    return verified === undefined ? { consumed, undecided: true } : { consumed, verified };
  }

  /**
   * Tries more candidates, after `receive` or this function has left some.
   *
   * @param trials how many to try at most.
   * @returns the secret that the client holds, undefined if there are candidates left to try.
   * @throws HandshakeError if the client holds none of the keys or its value must be refused.
   */
  tryMore(trials: number): Secret | undefined {
    for (let tried = 0; tried < trials; tried += 1) {
      const { done, value: secret } = this.#candidates.next();
      if (done) throw wrongKey();
      if (!this.#party.peerHolds(secret)) continue;
      this.#party.checkPeerValue();
      this.#verified = secret;
      return secret;
    }
    return undefined;
  }

  /**
   * Does the exponentiations. To be called once, after `receive` has reported a verified client.
   *
   * @returns this side's message, to be sent, and the session keys.
   */
  respond(): { readonly send: Uint8Array; readonly session: SessionKeys } {
    if (this.#verified === undefined) throw new Error("the client has not been verified");
    try {
      const send = this.#party.message(this.#verified);
      return { send, session: this.#party.sessionKeys(this.#verified) };
    } finally {
      this.#party.destroy();
    }
  }
}
