/**
 * The encrypted stream as a Node `Duplex`: what is written goes out sealed, what is read has been opened.
 */
import type { Socket } from "node:net";
import { Duplex } from "node:stream";
import type { Engine } from "../protocol/engine.ts";
import { fingerprint } from "../protocol/fingerprint.ts";
import type { SessionKeys } from "../protocol/key-schedule.ts";
import { Opener } from "../protocol/opener.ts";
import { openedSize, PACKET_DATA, PACKET_SIZE } from "../protocol/packet.ts";
import { Sealer } from "../protocol/sealer.ts";
import type { Secret } from "../protocol/secret.ts";
import { giveBuffer, POOLED_SIZE, takeBuffer } from "./buffer-pool.ts";
import { confirmEnd } from "./confirm-end.ts";
import { reset } from "./reset.ts";

/** Bytes of data whose packets fill a pooled buffer. */
const PIECE = Math.floor(POOLED_SIZE / PACKET_SIZE) * PACKET_DATA;

/**
 * One end of a spiped connection, after its handshake. Both directions end by themselves, as with a `net.Socket`
 * that allows half-open: `end()` sends what was written and then half-closes; 'end' says that the peer did so.
 *
 * It is destroyed with a PacketError when the peer's stream is forged, damaged or cut inside a packet, and with the
 * system's error when the connection breaks. An end between two packets can't be told from a true one.
 */
export class SpipedSocket extends Duplex {
  readonly #wire: Socket;
  readonly #sealer: Sealer;
  readonly #opener: Opener;
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
    wire.on("error", (error) => this.destroy(error));
    wire.on("close", () => {
      const orderly = wire.readableEnded && wire.writableFinished;
      if (!orderly) this.destroy(new Error("connection closed"));
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

  /** As in `net.Socket`: emits 'timeout' after `milliseconds` without traffic. */
  setTimeout(milliseconds: number, callback?: () => void): this {
    this.#wire.setTimeout(milliseconds);
    if (callback !== undefined) this.once("timeout", callback);
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

  override _write(chunk: Buffer, _encoding: BufferEncoding, callback: (error?: Error | null) => void): void {
    const buffer = takeBuffer();
    const piece = chunk.subarray(0, PIECE);
    const length = this.#sealer.seal(piece, buffer);
    this.#wire.write(buffer.subarray(0, length), (error) => {
      giveBuffer(buffer);
      if (error || this.destroyed || piece.length === chunk.length) callback(error);
      else this._write(chunk.subarray(piece.length), _encoding, callback);
    });
  }

  override _final(callback: (error?: Error | null) => void): void {
    this.#wire.end(callback);
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    this.#wire.removeAllListeners("data");
    if (error === null) this.#wire.destroy();
    else reset(this.#wire);
    this.#sealer.destroy();
    this.#opener.destroy();
    callback(error);
  }

  #receive(chunk: Buffer): void {
    const data = Buffer.allocUnsafe(openedSize(chunk.length));
    const length = this.#opener.open(chunk, data);
    if (length > 0 && !this.push(data.subarray(0, length))) this.#wire.pause();
    if (this.#opener.failure !== undefined) this.destroy(this.#opener.failure);
  }

  #receiveEnd(): void {
    const failure = this.#opener.end();
    if (failure === undefined) confirmEnd(this.#wire, () => this.push(null));
    else this.destroy(failure);
  }
}
