/**
 * A socket without a connection: what it receives, and what becomes of the bytes written to it, is a script. One step is
 * taken per iteration of the event loop, so a test determines the order of the events of several sockets.
 */
import type { Socket } from "node:net";
import { Duplex } from "node:stream";
import type { DirectIo, Reader, WriteCallback } from "../../src/net/direct-read.ts";

/** With direct reads and writes, or an ordinary stream. */
export type ScriptedKind = "direct" | "ordinary";

/** What a socket receives: data, the peer's half-close, a reset, or nothing for a number of iterations. */
export type ReadStep = Buffer | "end" | "reset" | number;

/**
 * What becomes of a write: accepted now, or after a number of iterations; its first part now and the rest after a number
 * of iterations; never accepted; or failed, now or after a number of iterations.
 */
export type WriteStep =
  | "now"
  | "never"
  | number
  | { readonly first: number; readonly restAfter: number }
  | { readonly failsAfter: number };

export interface Script {
  readonly reads: readonly ReadStep[];
  /** Returns what becomes of a write, by its number from 0. Writes are accepted immediately by default. */
  readonly writes?: ((index: number) => WriteStep) | undefined;
  /** Data that the stream has buffered from the start. */
  readonly buffered?: Buffer | undefined;
}

interface PendingWrite {
  readonly bytes: Buffer;
  readonly callback: WriteCallback;
}

/** How the peer sees the end of what was written to the socket. */
export type Ending = "open" | "end" | "reset" | "closed";

export function systemError(code: string): NodeJS.ErrnoException {
  return Object.assign(new Error(`scripted ${code}`), { code, syscall: "scripted" });
}

/** The stream part of a scripted socket. It is paused and unread until resumed, like an accepted socket. */
export class ScriptedSocket extends Duplex {
  readonly reads: ReadStep[];
  readonly #writeStep: (index: number) => WriteStep;
  readonly #accepted: Buffer[] = [];
  /** Writes that are neither accepted nor failed, in order. */
  readonly #unaccepted: PendingWrite[] = [];
  /** Number of writes that have been started. */
  writes = 0;
  /** Maximum number of writes that were not accepted at the same time. */
  maxUnaccepted = 0;
  #halfClosed = false;
  #wasReset = false;
  #isReading = false;
  #isScheduled = false;

  constructor({ reads, writes = () => "now", buffered }: Script) {
    super({ allowHalfOpen: true, autoDestroy: true });
    this.reads = [...reads];
    this.#writeStep = writes;
    this.on("error", () => {});
    this.pause();
    if (buffered !== undefined) this.unshift(buffered);
  }

  /** The socket as the code under test sees it. */
  get socket(): Socket {
    return this as unknown as Socket;
  }

  /** The bytes that the peer has received. */
  get received(): Buffer {
    return Buffer.concat(this.#accepted);
  }

  /** How the peer sees the end of the bytes that it has received. */
  get ending(): Ending {
    if (this.#wasReset) return "reset";
    if (this.#halfClosed) return "end";
    return this.destroyed ? "closed" : "open";
  }

  setNoDelay(): this {
    return this;
  }

  setKeepAlive(): this {
    return this;
  }

  address(): { address: string; family: string; port: number } {
    return { address: "192.0.2.1", family: "IPv4", port: 1 };
  }

  resetAndDestroy(): this {
    if (!this.#halfClosed) this.#wasReset = true;
    return this.destroy();
  }

  /** Takes steps that were added to `reads`. */
  continueReading(): void {
    if (this.#isReading) this.#schedule();
  }

  override _read(): void {
    this.startReading();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, callback: WriteCallback): void {
    this.accept(chunk, callback);
  }

  override _final(callback: WriteCallback): void {
    setImmediate(() => {
      if (!this.destroyed) this.#halfClosed = true;
      callback();
    });
  }

  override _destroy(error: Error | null, callback: (error: Error | null) => void): void {
    this.#isReading = false;
    const unaccepted = this.#unaccepted.splice(0);
    setImmediate(() => {
      // Node reports success for the writes of a socket that it has destroyed.
      for (const { callback: onWritten } of unaccepted) onWritten(null);
      callback(error);
    });
  }

  protected startReading(): void {
    this.#isReading = true;
    this.#schedule();
  }

  protected stopReading(): void {
    this.#isReading = false;
  }

  /** Passes received data on. Returns false to stop reading. */
  protected deliver(data: Buffer): boolean {
    return this.push(data);
  }

  /** Performs the next write step, once the writes before it are accepted. */
  protected accept(bytes: Buffer, callback: WriteCallback): void {
    // To confirm an end.
    if (bytes.length === 0) {
      callback(this.destroyed ? systemError("EPIPE") : null);
      return;
    }
    this.#unaccepted.push({ bytes, callback });
    if (this.#unaccepted.length === 1) this.#startWrite();
    this.maxUnaccepted = Math.max(this.maxUnaccepted, this.#unaccepted.length);
  }

  #startWrite(): void {
    const [write] = this.#unaccepted as [PendingWrite];
    const step = this.#writeStep(this.writes);
    this.writes += 1;
    let left = write.bytes;
    const take = (length: number) => {
      // A copy of what the bytes are now: they must not change before they are accepted.
      this.#accepted.push(Buffer.from(left.subarray(0, length)));
      left = left.subarray(length);
    };
    const finish = (error: Error | null) => {
      this.#unaccepted.shift();
      const hasNext = this.#unaccepted.length > 0;
      // May add a write, which starts immediately if there is no other.
      write.callback(error);
      if (hasNext && this.#unaccepted.length > 0) this.#startWrite();
    };
    const onAccepted = () => {
      take(left.length);
      finish(null);
    };
    const later = (iterations: number, action: () => void) => {
      if (this.#unaccepted[0] !== write) return;
      if (iterations > 0) setImmediate(later, iterations - 1, action);
      else action();
    };
    if (step === "now") {
      onAccepted();
    } else if (typeof step === "number") {
      later(step, onAccepted);
    } else if (step !== "never" && "first" in step) {
      take(step.first);
      later(step.restAfter, onAccepted);
    } else if (step !== "never") {
      later(step.failsAfter, () => {
        // The kernel reports the reset to reads too.
        this.reads.splice(0, this.reads.length, "end");
        finish(systemError("EPIPE"));
        this.continueReading();
      });
    }
  }

  #schedule(): void {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    setImmediate(() => {
      this.#isScheduled = false;
      if (this.#isReading && !this.destroyed) this.#takeStep();
    });
  }

  #takeStep(): void {
    const step = this.reads.shift();
    if (step === undefined) return;
    if (typeof step === "number") {
      if (step > 1) this.reads.unshift(step - 1);
    } else if (step === "end") {
      this.push(null);
      this.read(0);
      return;
    } else if (step === "reset") {
      this.destroy(systemError("ECONNRESET"));
      return;
    } else if (!this.deliver(step)) {
      this.stopReading();
    }
    if (this.#isReading) this.#schedule();
  }
}

/** A scripted socket with the interface of a `DirectSocket`, and its rules. */
export class ScriptedDirectSocket extends ScriptedSocket implements DirectIo {
  deferWriteErrors = true;
  reader: Reader | undefined;
  writeError: Error | undefined;
  pendingBytes = 0;
  readonly #readBuffer: Buffer;
  #afterPending: (() => void) | undefined;

  /** @param readBuffer - what all sockets of the engine read into. */
  constructor(script: Script, readBuffer: Buffer) {
    super(script);
    this.#readBuffer = readBuffer;
  }

  get canWriteNow(): boolean {
    return this.pendingBytes === 0 && this.writableLength === 0 && !this.writableEnded;
  }

  writeNow(bytes: Buffer, onWritten: WriteCallback): void {
    if (!this.canWriteNow) throw new Error("a write is pending");
    this.pendingBytes = bytes.length;
    this.accept(bytes, (error) => {
      if (error) {
        onWritten(error);
        this.#deferError((deferred) => this.destroy(deferred ?? undefined))(error);
        return;
      }
      this.pendingBytes = 0;
      onWritten();
      this.#afterPending?.();
    });
  }

  override resume(): this {
    super.resume();
    this.startReading();
    return this;
  }

  override pause(): this {
    super.pause();
    if (this.reader !== undefined) this.stopReading();
    return this;
  }

  override _write(chunk: Buffer, encoding: BufferEncoding, callback: WriteCallback): void {
    super._write(chunk, encoding, this.#deferError(callback));
  }

  override _final(callback: WriteCallback): void {
    if (this.pendingBytes === 0) super._final(callback);
    else this.#afterPending = () => super._final(callback);
  }

  protected override deliver(data: Buffer): boolean {
    if (this.reader === undefined) return super.deliver(data);
    this.#readBuffer.set(data);
    return this.reader(this.#readBuffer, data.length);
  }

  #deferError(callback: WriteCallback): WriteCallback {
    return (error) => {
      if (!error || !this.deferWriteErrors || this.readableEnded || this.destroyed) {
        callback(error);
        return;
      }
      this.writeError = error;
      const complete = () => {
        this.off("end", complete);
        this.off("close", complete);
        callback(error);
      };
      this.once("end", complete);
      this.once("close", complete);
      this.emit("writeError");
    };
  }
}
