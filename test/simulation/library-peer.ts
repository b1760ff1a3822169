/**
 * A simulated program that uses a stream of the library. It sends a stream of its own, checks that what it receives is
 * that of one other program, and ends as its plan says.
 */
import { Readable, Writable } from "node:stream";
import type { SpipedSocket } from "../../src/tunnel/spiped-socket.ts";
import { contentAt } from "./content.ts";
import type { BreakOff, LibraryPlan } from "./library-scenario.ts";
import type { Party } from "./peer.ts";
import { Receipt } from "./receipt.ts";
import {
  describeError,
  isProgramError,
  isStreamError,
  isWriteError,
  ProgramError,
  watchEvents,
} from "./stream-watch.ts";
import type { Trace } from "./trace.ts";

/** Bytes that a stream may buffer: two reads more than its high-water mark. */
const MAX_BUFFERED_BYTES = 65_536 + 2 * 131_072;
/** Writes of a corked batch. */
const CORKED_WRITES = 4;

/** What a program reports to its world. */
export interface LibraryPeerHost {
  readonly trace: Trace;
  readonly parties: ReadonlyMap<number, Party>;
  report(message: string): void;
  /** Called once it is known whose stream a program receives. */
  onPartner(peer: LibraryPeer, partner: Party): void;
  /** Called when the end has arrived as an end. */
  onEnd(peer: LibraryPeer): void;
}

export class LibraryPeer implements Party {
  readonly id: number;
  readonly name: string;
  readonly plan: LibraryPlan;
  readonly #host: LibraryPeerHost;
  readonly #receipt: Receipt;
  socket: SpipedSocket | undefined;
  /** The port from which the client of the connection has connected. */
  port: number | undefined;
  /** Bytes passed to the stream. */
  sent = 0;
  /** Write callbacks that were not called. */
  pendingCallbacks = 0;
  /** Number of writes whose callback got an error. */
  failedWrites = 0;
  sawEnd = false;
  isClosed = false;
  error: Error | undefined;
  /** True if it has destroyed the stream. */
  hasBrokenOff = false;
  /** True if it has disposed of the stream, and does not read any more. */
  hasDisposed = false;
  /** True if its disposal is not complete. */
  isDisposing = false;
  readonly neverReads: boolean;
  #hasEnded = false;
  #source: Readable | undefined;

  constructor(id: number, name: string, plan: LibraryPlan, host: LibraryPeerHost) {
    this.id = id;
    this.name = name;
    this.plan = plan;
    this.#host = host;
    this.#receipt = new Receipt(
      name,
      host.parties,
      (partner) => host.onPartner(this, partner),
      (message) => this.#report(message),
    );
    this.neverReads = plan.readInterval === Number.POSITIVE_INFINITY;
  }

  get received(): number {
    return this.#receipt.received;
  }

  /** True once it has ended its side: if the end arrives as one, all that it has sent has arrived. */
  get hasEnded(): boolean {
    return this.#hasEnded || this.socket?.writableEnded === true;
  }

  /** Uses the stream of a connection. */
  attach(socket: SpipedSocket): void {
    const { plan } = this;
    this.socket = socket;
    watchEvents(
      socket,
      (name) => this.#host.trace.record(`event-${name}`, this.id),
      (message) => this.#report(message),
    );
    this.#watchDestroy(socket);
    socket.on("error", (error) => {
      this.error = error;
      this.#host.trace.record("error", this.id, describeError(error));
    });
    socket.on("close", () => this.#onClose());
    if (!this.neverReads) {
      if (plan.readDelay === 0) this.#startReading();
      else setTimeout(() => this.#startReading(), plan.readDelay);
    }
    if (plan.writer === "pipe" && plan.ending !== "dispose") this.#pipeIn();
    else this.#write();
    if (typeof plan.ending === "object" && plan.ending.unit === "ms") {
      const { action, after } = plan.ending;
      setTimeout(() => this.breakOff(action), after);
    }
  }

  /** Destroys the stream, or disposes of it, unless it is destroyed. */
  breakOff(action: BreakOff["action"]): void {
    const { socket } = this;
    if (socket === undefined || socket.destroyed) return;
    this.#host.trace.record(action, this.id);
    this.#source?.unpipe(socket);
    if (action === "dispose") {
      void this.#dispose();
      return;
    }
    if (action === "end-destroy") socket.end();
    socket.destroy(action === "destroy-error" ? new ProgramError("given up") : undefined);
  }

  /** Notices when the stream is destroyed by its program, or by Node at the end of an iteration. */
  #watchDestroy(socket: SpipedSocket): void {
    const destroy = socket.destroy.bind(socket);
    socket.destroy = (error) => {
      const hasCompleted = socket.readableEnded && socket.writableFinished;
      if (!socket.destroyed && !hasCompleted && isProgramError(error ?? null)) {
        this.hasBrokenOff = true;
        // As with Node's sockets, the end follows what was written, unless some of that is lost.
        if (!error) this.#hasEnded = true;
      }
      return destroy(error);
    };
  }

  async #dispose(): Promise<void> {
    const socket = this.socket!;
    if (this.isDisposing) return;
    this.#hasEnded = true;
    this.hasDisposed = true;
    this.isDisposing = true;
    try {
      await socket[Symbol.asyncDispose]();
      if (!socket.destroyed) this.#report("disposed of, and not destroyed");
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      const isOwn = this.hasBrokenOff && code === "ERR_STREAM_PREMATURE_CLOSE";
      if (error !== this.error && error !== socket.errored && !isOwn)
        this.#report(`disposal failed with ${describeError(error as Error)}`);
    }
    this.isDisposing = false;
  }

  #report(message: string): void {
    this.#host.report(`${this.name} ${this.id}: ${message}`);
  }

  #onClose(): void {
    const socket = this.socket!;
    this.isClosed = true;
    if (this.pendingCallbacks > 0) this.#report(`'close' before ${this.pendingCallbacks} write callbacks`);
    if (socket.errored !== (this.error ?? null))
      this.#report("errored with another error than that of 'error'");
    if (this.error !== undefined || this.hasBrokenOff || this.hasDisposed) return;
    if (!socket.readableEnded) this.#report("closed without an error before the end of what it receives");
    if (!socket.writableFinished) this.#report("closed without an error before the end of what it sends");
  }

  // Writing.

  #write(): void {
    const { plan } = this;
    const socket = this.socket!;
    if (socket.destroyed || socket.writableEnded || this.hasDisposed) return;
    if (this.sent >= plan.total) {
      this.#maybeEnd();
      return;
    }
    if (plan.writer === "cork") {
      socket.cork();
      process.nextTick(() => socket.uncork());
    }
    for (let count = 1; this.sent < plan.total; count += 1) {
      const isBatchEnd = plan.writer === "callback" || (plan.writer === "cork" && count === CORKED_WRITES);
      const more = this.#writeNext(isBatchEnd ? () => this.#writeLater() : () => {});
      if (isBatchEnd) break;
      if (!more && plan.writer === "drain" && this.sent < plan.total) {
        socket.once("drain", () => this.#writeLater());
        return;
      }
    }
    if (this.sent >= plan.total) this.#maybeEnd();
  }

  #writeLater(): void {
    if (this.plan.writeInterval === 0) this.#write();
    else setTimeout(() => this.#write(), this.plan.writeInterval);
  }

  /** Writes the next data; ends with it if it is the last and the plan says so. */
  #writeNext(onWritten: () => void): boolean {
    const { plan } = this;
    const socket = this.socket!;
    const bytes = contentAt(this.id, this.sent, Math.min(plan.maxWrite, plan.total - this.sent));
    this.sent += bytes.length;
    const callback = this.#makeCallback(onWritten);
    const data = plan.strings ? bytes.toString("latin1") : bytes;
    const encoding = plan.strings ? "latin1" : "utf8";
    if (this.sent < plan.total || plan.ending !== "with-data") return socket.write(data, encoding, callback);
    this.#hasEnded = true;
    socket.end(data, encoding, callback);
    return false;
  }

  /** Returns a callback that is to be called exactly once. */
  #makeCallback(onWritten: () => void): (error?: Error | null) => void {
    let isCalled = false;
    this.pendingCallbacks += 1;
    return (error) => {
      this.#host.trace.record("callback", this.id, error ? describeError(error) : "");
      if (isCalled) this.#report("a write callback was called twice");
      isCalled = true;
      this.pendingCallbacks -= 1;
      if (!error) {
        onWritten();
        return;
      }
      this.failedWrites += 1;
      if (!isWriteError(error)) this.#report(`a write failed with ${describeError(error)}: ${error.stack}`);
      if (!this.socket!.destroyed) this.#report("a write failed on a stream that is not destroyed");
    };
  }

  /** Writes through `pipe()`. */
  #pipeIn(): void {
    const { plan } = this;
    let offset = 0;
    const next = () => {
      if (offset >= plan.total) {
        source.push(null);
        return;
      }
      const bytes = contentAt(this.id, offset, Math.min(plan.maxWrite, plan.total - offset));
      offset += bytes.length;
      source.push(bytes);
    };
    const source = new Readable({
      read: () => {
        if (plan.writeInterval === 0) next();
        else setTimeout(next, plan.writeInterval);
      },
    });
    this.#source = source;
    source.on("data", (bytes: Buffer) => {
      this.sent += bytes.length;
    });
    source.on("end", () => this.#maybeEnd());
    // A stream that ends by itself must not be written to afterwards.
    this.socket!.on("end", () => {
      if (!this.socket!.allowHalfOpen) source.unpipe(this.socket);
    });
    source.pipe(this.socket!, { end: false });
  }

  #maybeEnd(): void {
    const { ending, total } = this.plan;
    const socket = this.socket!;
    if (this.#hasEnded || socket.destroyed || this.sent < total) return;
    if (this.#source !== undefined && !this.#source.readableEnded) return;
    if (ending === "dispose") {
      void this.#dispose();
      return;
    }
    const mayEnd = ending === "orderly" || ending === "with-data" || (ending === "last" && this.sawEnd);
    if (!mayEnd) return;
    this.#hasEnded = true;
    socket.end(this.#makeCallback(() => {}));
  }

  // Reading.

  #startReading(): void {
    const socket = this.socket!;
    if (socket.destroyed || this.hasDisposed) return;
    const { reader } = this.plan;
    if (reader !== "pipe") socket.on("end", () => this.#receiveEnd());
    if (reader === "data") this.#readData(socket);
    else if (reader === "pipe") this.#pipeOut(socket);
    else if (reader === "readable") this.#readReadable(socket, undefined);
    else if (reader === "sized") this.#readReadable(socket, this.plan.maxRead);
    else void this.#iterate(socket);
  }

  #receive(chunk: Buffer): void {
    const socket = this.socket!;
    this.#host.trace.record("received", this.id, chunk.length);
    if (chunk.length === 0) this.#report("received an empty chunk");
    if (socket.destroyed && this.hasBrokenOff) this.#report("received data after destroy()");
    if (socket.readableLength > MAX_BUFFERED_BYTES)
      this.#report(`${socket.readableLength} bytes are buffered`);
    this.#receipt.add(chunk);
    const { ending } = this.plan;
    if (typeof ending === "object" && ending.unit === "bytes" && this.received >= ending.after)
      this.breakOff(ending.action);
  }

  #receiveEnd(): void {
    this.sawEnd = true;
    if (this.hasDisposed) return;
    this.#host.onEnd(this);
    if (this.socket!.allowHalfOpen) this.#maybeEnd();
  }

  #readData(socket: SpipedSocket): void {
    const { readInterval } = this.plan;
    socket.on("data", (chunk: Buffer) => {
      if (this.hasDisposed) return;
      this.#receive(chunk);
      if (readInterval === 0) return;
      socket.pause();
      setTimeout(() => {
        if (!socket.destroyed) socket.resume();
      }, readInterval);
    });
  }

  #readReadable(socket: SpipedSocket, size: number | undefined): void {
    const { readInterval } = this.plan;
    let isWaiting = false;
    const read = () => {
      if (isWaiting || this.hasDisposed || socket.destroyed) return;
      for (;;) {
        const { readableLength } = socket;
        const chunk = socket.read(
          size === undefined || size >= readableLength ? undefined : size,
        ) as Buffer | null;
        if (chunk === null) return;
        this.#receive(chunk);
        if (readInterval > 0) break;
      }
      isWaiting = true;
      setTimeout(() => {
        isWaiting = false;
        read();
      }, readInterval);
    };
    socket.on("readable", read);
  }

  async #iterate(socket: SpipedSocket): Promise<void> {
    const { reader, readInterval } = this.plan;
    const isGentle = reader === "gentle-iteration";
    try {
      for await (const chunk of isGentle ? socket.iterator({ destroyOnReturn: false }) : socket) {
        if (this.hasDisposed) return;
        this.#receive(chunk as Buffer);
        if (readInterval > 0) await new Promise<void>((resolve) => void setTimeout(resolve, readInterval));
      }
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      const isOwn = this.hasBrokenOff || this.hasDisposed;
      if (!isStreamError(error) && !(isOwn && code === "ERR_STREAM_PREMATURE_CLOSE"))
        this.#report(`iteration failed with ${describeError(error as Error)}: ${(error as Error).stack}`);
    }
  }

  #pipeOut(socket: SpipedSocket): void {
    const { readInterval, maxRead } = this.plan;
    const sink = new Writable({
      highWaterMark: maxRead,
      write: (chunk: Buffer, _encoding, callback) => {
        if (!this.hasDisposed && !(this.hasBrokenOff && socket.destroyed)) this.#receive(chunk);
        if (readInterval === 0) callback();
        else setTimeout(callback, readInterval);
      },
      final: (callback) => {
        this.#receiveEnd();
        callback();
      },
    });
    socket.pipe(sink);
  }
}
