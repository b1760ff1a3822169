/**
 * The handshake (sections 1.2 to 1.7 of the protocol; Tarsnap's `proto_handshake`), as state machines without I/O:
 *
 * ```text
 *     client                                     server
 *       ---- nonce_C (32) ------------------------>       sent concurrently
 *       <--- nonce_S (32) -------------------------
 *       ---- y_C (256) || h_C (32) --------------->       h_C is checked before any exponentiation
 *       <--- y_S (256) || h_S (32) ----------------       sent only after that check
 * ```
 *
 * Received bytes may be split anywhere. Bytes after the end of the handshake are left to the caller.
 */
import { randomBytes, timingSafeEqual } from "node:crypto";
import { Exponent, type ExponentSource, inRange, ONE, sameValue, VALUE_SIZE } from "./diffie-hellman.ts";
import {
  authenticateValue,
  deriveSessionKeys,
  NONCE_SIZE,
  type Nonces,
  type SessionKeys,
  type Side,
} from "./key-schedule.ts";
import { PACKET_MAC_SIZE } from "./packet.ts";
import { HandshakeError, type HandshakePart } from "./protocol-error.ts";
import type { Secret } from "./secret.ts";

const MESSAGE_SIZE = VALUE_SIZE + PACKET_MAC_SIZE;

/** Bytes of a complete handshake, in each direction. */
export const HANDSHAKE_SIZE = NONCE_SIZE + MESSAGE_SIZE;

/** Options of both sides. */
export interface HandshakeOptions {
  /** `-f`: send 1 instead of a Diffie-Hellman value, without forward secrecy (section 1.6). */
  readonly weak?: boolean;
  /** `-g`: reject a peer that does so. */
  readonly requireForwardSecrecy?: boolean;
  /** Source of exponents; by default, each is generated when it is needed. */
  readonly exponents?: ExponentSource;
  /** Source of random bytes, for tests with known values. Called for the nonce, then for the exponent. */
  readonly random?: (size: number) => Uint8Array;
}

/** State that both sides have: the nonce, the exponent, and the bytes received so far. */
class HandshakeState {
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

  /** Stores bytes up to the end of the handshake; returns the number stored. */
  consume(bytes: Uint8Array): number {
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

  /** Returns true if the MAC of the peer's message was made with this secret. */
  verifyPeerMac(secret: Secret): boolean {
    const peer = this.#side === "client" ? "server" : "client";
    const expected = authenticateValue(secret, this.nonces, peer, this.#peerValue);
    return timingSafeEqual(expected, this.#received.subarray(NONCE_SIZE + VALUE_SIZE));
  }

  /**
   * Checks the peer's value, after its MAC, in the protocol's order.
   *
   * @throws HandshakeError
   */
  checkPeerValue(): void {
    if (!inRange(this.#peerValue)) {
      throw new HandshakeError("ERR_SPIPED_HANDSHAKE_RANGE", "peer sent a Diffie-Hellman value out of range");
    }
    if (this.#options.requireForwardSecrecy && sameValue(this.#peerValue, ONE)) {
      throw new HandshakeError("ERR_SPIPED_HANDSHAKE_WEAK", "peer offered no forward secrecy");
    }
  }

  /** Generates the exponent and returns this side's message, y || h. */
  message(secret: Secret): Uint8Array {
    let value = ONE;
    if (!this.#options.weak) {
      this.#exponent = this.#options.exponents?.take() ?? Exponent.generate(this.#random);
      value = this.#exponent.publicValue();
    }
    const message = new Uint8Array(MESSAGE_SIZE);
    message.set(value);
    message.set(authenticateValue(secret, this.nonces, this.#side, value), VALUE_SIZE);
    return message;
  }

  /** Returns the session keys. Call it after `message()` and `checkPeerValue()`. */
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

/** Result of `ClientHandshake.receive()`. */
export interface ClientProgress {
  /** Number of bytes that belonged to the handshake. */
  readonly consumed: number;
  /** Bytes to send now. */
  readonly send?: Uint8Array;
  /** Set once the handshake is complete. */
  readonly session?: SessionKeys;
}

/** The side that opened the connection. */
export class ClientHandshake {
  readonly #state: HandshakeState;
  readonly #secret: Secret;
  #sent = false;

  constructor(secret: Secret, options: HandshakeOptions = {}) {
    this.#secret = secret;
    this.#state = new HandshakeState("client", options);
  }

  /** The nonce, 32 bytes. Send it first, without waiting for the server's. */
  get nonce(): Uint8Array {
    return this.#state.nonce;
  }

  /** The part that the server has not completely sent; undefined once it has sent everything. */
  get awaiting(): HandshakePart | undefined {
    return this.#state.awaiting;
  }

  /**
   * Processes the next bytes from the server.
   *
   * @throws HandshakeError if the server does not hold the key or its value must be rejected.
   */
  receive(bytes: Uint8Array): ClientProgress {
    const consumed = this.#state.consume(bytes);
    let send: Uint8Array | undefined;
    if (this.#state.hasNonce && !this.#sent) {
      send = this.#state.message(this.#secret);
      this.#sent = true;
    }
    if (!this.#state.hasMessage) return send === undefined ? { consumed } : { consumed, send };
    if (!this.#state.verifyPeerMac(this.#secret)) throw wrongKey();
    this.#state.checkPeerValue();
    const session = this.#state.sessionKeys(this.#secret);
    return send === undefined ? { consumed, session } : { consumed, send, session };
  }

  /** Discards the exponent of a handshake that will not be completed. */
  destroy(): void {
    this.#state.destroy();
  }
}

/** Result of `ServerHandshake.receive()`. */
export interface ServerProgress {
  /** Number of bytes that belonged to the handshake. */
  readonly consumed: number;
  /**
   * The secret that the client holds. The client is authenticated; call `respond()` next. If it is undefined and the
   * client's message has arrived, not all candidates were tried; call `tryMoreKeys()` next.
   */
  readonly verified?: Secret;
}

/** The side that accepted the connection. An unauthenticated client costs it two HMACs per key tried. */
export class ServerHandshake {
  readonly #state: HandshakeState;
  readonly #candidates: Iterator<Secret, unknown>;
  #verified: Secret | undefined;

  /** @param candidates - the secrets that a client may hold, likeliest first; read once its message has arrived. */
  constructor(candidates: Iterable<Secret>, options: HandshakeOptions = {}) {
    this.#candidates = candidates[Symbol.iterator]();
    this.#state = new HandshakeState("server", options);
  }

  /** The nonce, 32 bytes. Send it first, without waiting for the client's. */
  get nonce(): Uint8Array {
    return this.#state.nonce;
  }

  /** The part that the client has not completely sent; undefined once it has sent everything. */
  get awaiting(): HandshakePart | undefined {
    return this.#state.awaiting;
  }

  /**
   * Processes the next bytes from the client.
   *
   * @param trials - maximum number of candidates to try once the client's message is complete.
   * @throws HandshakeError if the client holds none of the keys or its value must be rejected.
   */
  receive(bytes: Uint8Array, trials = Number.POSITIVE_INFINITY): ServerProgress {
    const consumed = this.#state.consume(bytes);
    if (!this.#state.hasMessage) return { consumed };
    const verified = this.tryMoreKeys(trials);
    return verified === undefined ? { consumed } : { consumed, verified };
  }

  /**
   * Tries further candidates if `receive()` or this method left some.
   *
   * @param trials - maximum number of candidates to try.
   * @returns the secret that the client holds; undefined if candidates are left to try.
   * @throws HandshakeError if the client holds none of the keys or its value must be rejected.
   */
  tryMoreKeys(trials: number): Secret | undefined {
    for (let tried = 0; tried < trials; tried += 1) {
      const { done, value: secret } = this.#candidates.next();
      if (done) throw wrongKey();
      if (!this.#state.verifyPeerMac(secret)) continue;
      this.#state.checkPeerValue();
      this.#verified = secret;
      return secret;
    }
    return undefined;
  }

  /**
   * Does the exponentiations. Call it once, after `receive()` or `tryMoreKeys()` has returned the client's secret.
   *
   * @returns this side's message, to send, and the session keys.
   */
  respond(): { readonly send: Uint8Array; readonly session: SessionKeys } {
    if (this.#verified === undefined) throw new Error("the client has not been authenticated");
    try {
      const send = this.#state.message(this.#verified);
      return { send, session: this.#state.sessionKeys(this.#verified) };
    } finally {
      this.#state.destroy();
    }
  }
}
