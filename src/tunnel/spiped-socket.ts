/**
 * The encrypted stream as a Node `Duplex`: encrypts written data and decrypts received data.
 */
import type { Socket } from "node:net";
import { Duplex } from "node:stream";
import { finished } from "node:stream/promises";
import { confirmEof } from "../net/confirm-eof.ts";
import { unsentBytes, writeErrorOf } from "../net/direct-read.ts";
import { reset } from "../net/reset.ts";
import { startTimeout } from "../net/timers.ts";
import type { Engine } from "../protocol/engine/engine.ts";
import { fingerprint } from "../protocol/fingerprint.ts";
import type { SessionKeys } from "../protocol/key-schedule.ts";
import { Opener } from "../protocol/opener.ts";
import { openedSize, PACKET_DATA_SIZE, PACKET_SIZE, sealedSize } from "../protocol/packet.ts";
import { Sealer } from "../protocol/sealer.ts";
import type { Secret } from "../protocol/secret.ts";
import { acquireBuffer, POOLED_BUFFER_BYTES, releaseBuffer } from "./buffer-pool.ts";
import { maintain } from "./engine-upkeep.ts";
import type { Traffic } from "./pipe.ts";
import { ConnectionLostError } from "./tunnel-error.ts";

/** Maximum bytes of data whose packets fit into a pooled buffer. */
const MAX_WRITE_BYTES = Math.floor(POOLED_BUFFER_BYTES / PACKET_SIZE) * PACKET_DATA_SIZE;

/** Maximum time that disposal waits for the peer to end its side, in ms. */
const MAX_DISPOSAL_MS = 5000;

/** Maximum time without a read before a failed stream with unread data is destroyed, in ms. */
const MAX_UNREAD_MS = 60_000;

/** Options of `SpipedSocket.create()`. */
interface SpipedSocketOptions {
  /** The key that the client used. */
  readonly key?: { readonly name: string; readonly secret: Secret } | undefined;
  readonly traffic?: Traffic | undefined;
}

/**
 * One end of a spiped connection after its handshake, created by `connect()` and `createServer()`. The directions end
 * independently, as with a `net.Socket` with `allowHalfOpen`: `end()` sends the written data and then half-closes; 'end'
 * is emitted when the peer does so.
 *
 * The stream is destroyed with a PacketError if the peer's data is forged, corrupted or truncated inside a packet, and
 * with the system error if the connection is lost. Data received before the failure can still be read; if it is not
 * read for a minute, or reading was never started, the stream is destroyed without it. A connection truncated between
 * two packets cannot be distinguished from a complete one.
 *
 * `destroy()` discards the data that has not been sent. The peer then sees a reset, as with `destroy(error)`; if all
 * data has been sent, it sees EOF.
 *
 * `await using` ends the stream: see `[Symbol.asyncDispose]()`.
 */
export class SpipedSocket extends Duplex {
  readonly #encrypted: Socket;
  readonly #sealer: Sealer;
  readonly #opener: Opener;
  readonly #traffic: Traffic;
  /** Error with which the stream is destroyed once its data has been read. */
  #failure: Error | undefined;
  /** True if written data can no longer reach the peer. */
  #writesLost = false;
  /** Bytes of the current write that were passed to the encrypted socket. */
  #passedBytes = 0;
  #onWritten: ((error?: Error | null) => void) | undefined;
  /** Time of the last read since writes are lost, in ms on the monotonic clock. */
  #readAt = 0;
  #stopWatchingReader = () => {};
  /** True once the encrypted socket has emitted 'close'; its property `closed` is true before. */
  #isEncryptedClosed = false;
  /** Completes the destruction of the stream when the encrypted socket is closed. */
  #onEncryptedClosed: (() => void) | undefined;
  /** Name of the client's key; undefined if the server has only one key, and on the client. */
  readonly keyName: string | undefined;
  /** Fingerprint of the client's key, which distinguishes keys of the same name; undefined if `keyName` is. */
  readonly keyFingerprint: string | undefined;

  /**
   * Overwrites the session keys.
   *
   * @internal
   */
  static create(
    encrypted: Socket,
    session: SessionKeys,
    engine: Engine,
    options: SpipedSocketOptions = {},
  ): SpipedSocket {
    return new SpipedSocket(encrypted, session, engine, options);
  }

  private constructor(
    encrypted: Socket,
    session: SessionKeys,
    engine: Engine,
    { key, traffic = { bytesEncrypted: 0, bytesDecrypted: 0 } }: SpipedSocketOptions,
  ) {
    super({ allowHalfOpen: true });
    this.keyName = key?.name;
    this.keyFingerprint = key && fingerprint(key.secret);
    this.#encrypted = encrypted;
    maintain(engine);
    this.#sealer = new Sealer(engine, session.seal);
    this.#opener = new Opener(engine, session.open);
    this.#traffic = traffic;
    session.destroy();

    encrypted.setNoDelay(true);
    encrypted.on("data", (chunk) => this.#receive(chunk));
    encrypted.on("end", () => this.#receiveEnd());
    encrypted.on("error", (error) => this.#fail(error));
    encrypted.on("writeError", () => this.#stopWriting());
    encrypted.on("close", () => {
      this.#isEncryptedClosed = true;
      this.#onEncryptedClosed?.();
      const endedCleanly = encrypted.readableEnded && encrypted.writableFinished;
      if (!endedCleanly) this.#fail(new ConnectionLostError("encrypted", null, "connection closed"));
    });
    encrypted.on("timeout", () => this.emit("timeout"));
    encrypted.pause();
  }

  /** The peer's IP address; undefined over a UNIX socket. */
  get remoteAddress(): string | undefined {
    return this.#encrypted.remoteAddress;
  }

  /** The peer's port; undefined over a UNIX socket. */
  get remotePort(): number | undefined {
    return this.#encrypted.remotePort;
  }

  /** As in `net.Socket`. Enabled by default. */
  setNoDelay(noDelay?: boolean): this {
    this.#encrypted.setNoDelay(noDelay);
    return this;
  }

  /** As in `net.Socket`. */
  setKeepAlive(enable?: boolean, initialDelay?: number): this {
    this.#encrypted.setKeepAlive(enable, initialDelay);
    return this;
  }

  /** As in `net.Socket`: emits 'timeout' after `milliseconds` without traffic; 0 disables it and removes `callback`. */
  setTimeout(milliseconds: number, callback?: () => void): this {
    this.#encrypted.setTimeout(milliseconds);
    if (callback === undefined) return this;
    if (milliseconds === 0) this.off("timeout", callback);
    else this.once("timeout", callback);
    return this;
  }

  /** As in `net.Socket`: the connection keeps the process alive. */
  ref(): this {
    this.#encrypted.ref();
    return this;
  }

  /** As in `net.Socket`: the connection does not keep the process alive. */
  unref(): this {
    this.#encrypted.unref();
    return this;
  }

  /** @internal */
  override _read(): void {
    this.#encrypted.resume();
  }

  /** @internal */
  override read(size?: number): unknown {
    // Node's streams go on to emit the data that they have buffered.
    if (this.destroyed) return null;
    const data: unknown = super.read(size);
    if (data !== null && this.#writesLost) this.#readAt = performance.now();
    if (this.#failure !== undefined && this.readableLength === 0) this.destroy(this.#failure);
    return data;
  }

  /** @internal */
  override _write(chunk: Buffer, encoding: BufferEncoding, callback: (error?: Error | null) => void): void {
    if (this.#writesLost) {
      callback();
      return;
    }
    const part = chunk.subarray(0, MAX_WRITE_BYTES);
    const buffer = acquireBuffer(sealedSize(part.length));
    this.#traffic.bytesEncrypted += part.length;
    this.#passedBytes += part.length;
    const length = this.#sealer.seal(part, buffer);
    this.#onWritten = callback;
    this.#encrypted.write(buffer.subarray(0, length), (error) => {
      releaseBuffer(buffer);
      const done = error || this.destroyed || this.#writesLost || part.length === chunk.length;
      if (done) this.#written(error);
      else this._write(chunk.subarray(part.length), encoding, callback);
    });
  }

  /** @internal */
  override _final(callback: (error?: Error | null) => void): void {
    // If written data was lost, the stream never finishes: it is destroyed with its failure instead.
    if (this.#writesLost) return;
    this.#encrypted.end((error?: Error | null) => {
      if (error) this.#fail(error);
      if (!this.#writesLost) callback(error);
    });
  }

  /** Completes a write. If it failed, the stream is destroyed, but only after received data has been read. */
  #written(error?: Error | null): void {
    if (error) this.#fail(error);
    const onWritten = this.#onWritten;
    this.#onWritten = undefined;
    this.#passedBytes = 0;
    // An error would become that of a stream which was destroyed without one.
    const wasInterrupted = this.destroyed && this.errored === null;
    onWritten?.(wasInterrupted ? null : error);
  }

  /**
   * Ends the stream cleanly, as `await using` does: delivers the written data, then half-closes. Received data is
   * discarded until the peer ends its side or 5 s have passed.
   *
   * @returns a promise that resolves when the stream is closed.
   * @throws the stream's error if the written data cannot be delivered.
   */
  override async [Symbol.asyncDispose](): Promise<void> {
    if (this.destroyed) return;
    let cancel = () => {};
    const closed = finished(this);
    this.end(() => {
      cancel = startTimeout(MAX_DISPOSAL_MS, () => this.destroy());
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

  /** @internal */
  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    this.#stopWatchingReader();
    this.#encrypted.removeAllListeners("data");
    if (error === null && !this.#hasUnsentData) this.#encrypted.destroy();
    else reset(this.#encrypted);
    this.#sealer.destroy();
    this.#opener.destroy();
    // As in `net.Socket`, 'close' follows the callbacks of all writes.
    if (this.#isEncryptedClosed) callback(error);
    else this.#onEncryptedClosed = () => callback(error);
  }

  /** True if the kernel has not accepted all written data. */
  get #hasUnsentData(): boolean {
    return this.writableLength > this.#passedBytes || unsentBytes(this.#encrypted) > 0;
  }

  /** Destroys the stream once received data has been read; immediately if none is buffered or reading never started. */
  #fail(error: Error): void {
    if (this.#failure !== undefined || this.destroyed) return;
    if (this.readableLength === 0 || this.readableFlowing === null) {
      this.destroy(error);
      return;
    }
    this.#failure = error;
    this.#loseWrites();
    if (!this.#encrypted.destroyed) reset(this.#encrypted);
  }

  /**
   * Handles a failed write while received data may still be unread. Until that is read, further writes complete but are
   * lost, as before a failure is detected: a caller that reads on only after a write must not wait forever.
   */
  #stopWriting(): void {
    if (this.readableFlowing === null) this.destroy(writeErrorOf(this.#encrypted));
    else this.#loseWrites();
  }

  #loseWrites(): void {
    if (this.#writesLost) return;
    this.#writesLost = true;
    this.#written();
    this.#readAt = performance.now();
    this.#watchReader(MAX_UNREAD_MS);
  }

  /** Destroys the stream if it is not read, so that a caller awaiting the end of its writes is not blocked forever. */
  #watchReader(delay: number): void {
    this.#stopWatchingReader = startTimeout(delay, () => {
      const left = this.#readAt + MAX_UNREAD_MS - performance.now();
      if (left > 0) this.#watchReader(left);
      else this.destroy(this.#failure ?? writeErrorOf(this.#encrypted));
    });
  }

  #receive(chunk: Buffer): void {
    if (this.#failure !== undefined) return;
    const data = Buffer.allocUnsafe(openedSize(chunk.length));
    const length = this.#opener.open(chunk, data);
    this.#traffic.bytesDecrypted += length;
    if (length > 0 && !this.push(data.subarray(0, length))) this.#encrypted.pause();
    if (this.#opener.failure !== undefined) this.#fail(this.#opener.failure);
  }

  #receiveEnd(): void {
    if (writeErrorOf(this.#encrypted) !== undefined) return;
    const failure = this.#opener.end();
    if (failure === undefined) confirmEof(this.#encrypted, () => this.push(null));
    else this.#fail(failure);
  }
}
