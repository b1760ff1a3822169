/**
 * The encrypted stream as a Node `Duplex`: what is written goes out sealed, what is read has been opened.
 */
import type { Socket } from "node:net";
import { Duplex } from "node:stream";
import { finished } from "node:stream/promises";
import { confirmEnd } from "../net/confirm-end.ts";
import { DirectSocket } from "../net/direct-read.ts";
import { reset } from "../net/reset.ts";
import { deadline } from "../net/timers.ts";
import type { Engine } from "../protocol/engine/engine.ts";
import { fingerprint } from "../protocol/fingerprint.ts";
import type { SessionKeys } from "../protocol/key-schedule.ts";
import { Opener } from "../protocol/opener.ts";
import { openedSize, PACKET_DATA, PACKET_SIZE } from "../protocol/packet.ts";
import { Sealer } from "../protocol/sealer.ts";
import type { Secret } from "../protocol/secret.ts";
import { giveBuffer, POOLED_SIZE, takeBuffer } from "./buffer-pool.ts";

/** Bytes of data whose packets fill a pooled buffer. */
const PIECE = Math.floor(POOLED_SIZE / PACKET_SIZE) * PACKET_DATA;

/** How long a stream that is disposed of waits for the peer to end its side, ms. */
const LONGEST_DISPOSAL = 5000;

/** How long a broken stream waits until somebody reads on, ms, before it is destroyed. */
const MAX_UNREAD_MS = 60_000;

/**
 * One end of a spiped connection, after its handshake. Both directions end by themselves, as with a `net.Socket`
 * that allows half-open: `end()` sends what was written and then half-closes; 'end' says that the peer did so.
 *
 * It is destroyed with a PacketError when the peer's stream is forged, damaged or cut inside a packet, and with the
 * system's error when the connection breaks, but not before what was received until then has been read, unless nothing
 * is read for a minute. An end between two packets can't be told from a true one.
 *
 * `await using` ends it: see `[Symbol.asyncDispose]()`.
 */
export class SpipedSocket extends Duplex {
  readonly #wire: Socket;
  readonly #sealer: Sealer;
  readonly #opener: Opener;
  /** Why the stream is destroyed when it has been read. */
  #failure: Error | undefined;
  /** Whether what is written can't reach the peer any more. */
  #deaf = false;
  #onWritten: ((error?: Error | null) => void) | undefined;
  /** When the stream was last read, ms on the monotonic clock. */
  #readAt = 0;
  #stopWatchingReader = () => {};
  /** The client's name, which its key has; undefined if the server has only one key, and at the client. */
  readonly keyName: string | undefined;
  /** The fingerprint of the client's key, which tells several keys of one name apart; undefined where `keyName` is. */
  readonly keyFingerprint: string | undefined;

  /** @internal Made by `connect()` and `createServer()`. The session keys are overwritten. */
  constructor(
    wire: Socket,
    session: SessionKeys,
    engine: Engine,
    key?: { readonly name: string; readonly secret: Secret },
  ) {
    super({ allowHalfOpen: true });
    this.keyName = key?.name;
    this.keyFingerprint = key && fingerprint(key.secret);
    this.#wire = wire;
    this.#sealer = new Sealer(engine, session.seal);
    this.#opener = new Opener(engine, session.open);
    session.destroy();

    wire.setNoDelay(true);
    wire.on("data", (chunk) => this.#receive(chunk));
    wire.on("end", () => this.#receiveEnd());
    wire.on("error", (error) => this.#fail(error));
    wire.on("writeError", () => this.#stopWriting());
    wire.on("close", () => {
      const orderly = wire.readableEnded && wire.writableFinished;
      if (!orderly) this.#fail(new Error("connection closed"));
    });
    wire.on("timeout", () => this.emit("timeout"));
    wire.pause();
  }

  /** The peer's IP address; undefined over a UNIX socket. */
  get remoteAddress(): string | undefined {
    return this.#wire.remoteAddress;
  }

  /** The peer's port; undefined over a UNIX socket. */
  get remotePort(): number | undefined {
    return this.#wire.remotePort;
  }

  /** As in `net.Socket`. It is on from the start. */
  setNoDelay(noDelay?: boolean): this {
    this.#wire.setNoDelay(noDelay);
    return this;
  }

  /** As in `net.Socket`. */
  setKeepAlive(enable?: boolean, initialDelay?: number): this {
    this.#wire.setKeepAlive(enable, initialDelay);
    return this;
  }

  /** As in `net.Socket`: emits 'timeout' after `milliseconds` without traffic; 0 turns that off, for `callback` too. */
  setTimeout(milliseconds: number, callback?: () => void): this {
    this.#wire.setTimeout(milliseconds);
    if (callback === undefined) return this;
    if (milliseconds === 0) this.off("timeout", callback);
    else this.once("timeout", callback);
    return this;
  }

  /** As in `net.Socket`: the connection keeps the process alive. */
  ref(): this {
    this.#wire.ref();
    return this;
  }

  /** As in `net.Socket`: the connection does not keep the process alive. */
  unref(): this {
    this.#wire.unref();
    return this;
  }

  override _read(): void {
    this.#wire.resume();
  }

  override read(size?: number): unknown {
    const data = super.read(size);
    if (data !== null) this.#readAt = performance.now();
    if (this.#failure !== undefined && this.readableLength === 0) this.destroy(this.#failure);
    return data;
  }

  override _write(chunk: Buffer, encoding: BufferEncoding, callback: (error?: Error | null) => void): void {
    if (this.#deaf) {
      callback();
      return;
    }
    const piece = chunk.subarray(0, PIECE);
    const buffer = takeBuffer(piece.length);
    const length = this.#sealer.seal(piece, buffer);
    this.#onWritten = callback;
    this.#wire.write(buffer.subarray(0, length), (error) => {
      giveBuffer(buffer);
      const done = error || this.destroyed || this.#deaf || piece.length === chunk.length;
      if (done) this.#written(error);
      else this._write(chunk.subarray(piece.length), encoding, callback);
    });
  }

  override _final(callback: (error?: Error | null) => void): void {
    // A deaf stream has lost what was written: it never finishes, it is destroyed with its failure.
    if (this.#deaf) return;
    this.#wire.end((error?: Error | null) => {
      if (error) this.#fail(error);
      if (!this.#deaf) callback(error);
    });
  }

  /** Ends a write. One that failed destroys the stream, but not before what has been received has been read. */
  #written(error?: Error | null): void {
    if (error) this.#fail(error);
    const onWritten = this.#onWritten;
    this.#onWritten = undefined;
    onWritten?.(error);
  }

  /**
   * Ends the stream in order, as `await using` does: what was written is delivered, then the stream is half-closed. What
   * the peer sends from now on is discarded until it ends its side, too, or 5 s are over.
   *
   * @returns a promise that resolves when the stream is closed.
   * @throws the stream's error if what was written can't be delivered.
   */
  override async [Symbol.asyncDispose](): Promise<void> {
    if (this.destroyed) return;
    let cancel = () => {};
    const closed = finished(this);
    this.end(() => {
      cancel = deadline(LONGEST_DISPOSAL, () => this.destroy());
    });
    this.resume();
    try {
      await closed;
    } catch (error) {
      if (!this.writableFinished || this.errored !== null) throw error;
    } finally {
      cancel();
      this.destroy();
    }
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    this.#stopWatchingReader();
    this.#wire.removeAllListeners("data");
    if (error === null) this.#wire.destroy();
    else reset(this.#wire);
    this.#sealer.destroy();
    this.#opener.destroy();
    callback(error);
  }

  /** Destroys the stream, but not before what it has received has been read, if it is read at all. */
  #fail(error: Error): void {
    if (this.#failure !== undefined || this.destroyed) return;
    if (this.readableLength === 0 || this.readableFlowing === null) {
      this.destroy(error);
      return;
    }
    this.#failure = error;
    this.#deafen();
    if (!this.#wire.destroyed) reset(this.#wire);
  }

  /**
   * A write has failed, but more may have been received than has been read. What is written until that has been read is
   * lost, as it is in the time before a failure is noticed: who waits for a write to read on must not wait for ever.
   */
  #stopWriting(): void {
    if (this.readableFlowing === null) this.destroy((this.#wire as DirectSocket).writeError);
    else this.#deafen();
  }

  #deafen(): void {
    if (this.#deaf) return;
    this.#deaf = true;
    this.#written();
    this.#readAt = performance.now();
    this.#watchReader(MAX_UNREAD_MS);
  }

  /** Destroys the stream if nobody reads it: who waits for the end of a write must not wait for ever. */
  #watchReader(delay: number): void {
    this.#stopWatchingReader = deadline(delay, () => {
      const left = this.#readAt + MAX_UNREAD_MS - performance.now();
      if (left > 0) this.#watchReader(left);
      else this.destroy(this.#failure ?? (this.#wire as DirectSocket).writeError);
    });
  }

  #receive(chunk: Buffer): void {
    if (this.#failure !== undefined) return;
    const data = Buffer.allocUnsafe(openedSize(chunk.length));
    const length = this.#opener.open(chunk, data);
    if (length > 0 && !this.push(data.subarray(0, length))) this.#wire.pause();
    if (this.#opener.failure !== undefined) this.#fail(this.#opener.failure);
  }

  #receiveEnd(): void {
    if (this.#wire instanceof DirectSocket && this.#wire.writeError !== undefined) return;
    const failure = this.#opener.end();
    if (failure === undefined) confirmEnd(this.#wire, () => this.push(null));
    else this.#fail(failure);
  }
}
