/**
 * Two connected sockets within the process, without a descriptor. They are real sockets of Node with a handle in
 * JavaScript, so that data takes the same path as over the network, except that the event loop is not polled.
 *
 * They transfer buffers, not strings. What Node expects of a handle is undocumented, so use them only for what may fail.
 */
import type { Socket } from "node:net";
import { createSocket, type OnRead } from "./direct-read.ts";
import { MAX_READ_BYTES } from "./fairness.ts";

/** Node's request for a write; null from Node 26 on, where the handle creates it if the write does not complete. */
interface Request {
  /** True if Node waits for `oncomplete`. */
  readonly async?: boolean;
  oncomplete?(this: Request, status: number, handle: object, error: undefined): void;
}

/** A connected handle. Its methods return 0, the status of a success, as those of Node's TCP handles do. */
class MemoryHandle {
  /** Set by Node. */
  reading = false;
  readonly fd = -1;
  bytesRead = 0;
  bytesWritten = 0;
  onread: unknown;
  #peer: MemoryHandle | undefined;
  #socket: Socket | undefined;
  #read: OnRead | undefined;
  /** Written by the peer and not read yet. */
  readonly #received: Buffer[] = [];
  #hasEnded = false;
  #isScheduled = false;
  #buffer: Buffer | undefined;

  /** Connects both handles, which belong to `socket` and `other`. */
  connect(peer: MemoryHandle, socket: Socket, read: OnRead): void {
    this.#peer = peer;
    this.#socket = socket;
    this.#read = read;
  }

  useUserBuffer(buffer: Buffer): void {
    this.#buffer = buffer;
  }

  readStart(): number {
    this.reading = true;
    this.#schedule();
    return 0;
  }

  readStop(): number {
    this.reading = false;
    return 0;
  }

  writeBuffer(request: Request | null, bytes: Buffer): number {
    this.#peer?.receive(Buffer.from(bytes));
    this.#complete(request);
    return 0;
  }

  writev(request: Request | null, buffers: readonly Buffer[]): number {
    return this.writeBuffer(request, Buffer.concat(buffers));
  }

  shutdown(): number {
    this.#peer?.receiveEnd();
    // Complete.
    return 1;
  }

  close(onClosed: () => void): void {
    this.#peer?.receiveEnd();
    this.#peer = undefined;
    this.#read = undefined;
    setImmediate(onClosed);
  }

  setNoDelay(): number {
    return 0;
  }

  setKeepAlive(): number {
    return 0;
  }

  ref(): void {}

  unref(): void {}

  getpeername(out: object): number {
    Object.assign(out, { address: "127.0.0.1", port: 1, family: "IPv4" });
    return 0;
  }

  /** Like a UNIX socket, it has no port: Node can reset only handles of its own. */
  getsockname(): number {
    return 0;
  }

  receive(bytes: Buffer): void {
    this.#received.push(bytes);
    this.#schedule();
  }

  receiveEnd(): void {
    this.#hasEnded = true;
    this.#schedule();
  }

  #schedule(): void {
    if (this.#isScheduled || !this.reading) return;
    this.#isScheduled = true;
    setImmediate(() => {
      this.#isScheduled = false;
      this.#deliver();
    });
  }

  /** Does what Node does for reads of a socket with `onread`. */
  #deliver(): void {
    while (this.reading && this.#received.length > 0 && this.#read !== undefined) {
      const bytes = this.#received[0]!;
      const target = this.#buffer!;
      const length = bytes.copy(target, 0, 0, Math.min(bytes.length, target.length, MAX_READ_BYTES));
      if (length === bytes.length) this.#received.shift();
      else this.#received[0] = bytes.subarray(length);
      const wantsMore = this.#read.callback(length);
      this.#buffer = this.#read.buffer() ?? this.#buffer;
      if (!wantsMore) this.reading = false;
    }
    if (!this.reading || this.#received.length > 0 || !this.#hasEnded) return;
    this.reading = false;
    this.#socket?.push(null);
    this.#socket?.read(0);
  }

  /** Completes a write if Node waits for that: it decides so by the last write of any socket. */
  #complete(request: Request | null): void {
    if (request === null) return;
    queueMicrotask(() => {
      if (request.async === true) request.oncomplete?.(0, this, undefined);
    });
  }
}

/** Returns two connected sockets, paused and unread, with `allowHalfOpen`. */
export function memorySocketPair(): [Socket, Socket] {
  const [a, b] = [new MemoryHandle(), new MemoryHandle()];
  const first = createSocket({ handle: a, pauseOnCreate: true });
  const second = createSocket({ handle: b, pauseOnCreate: true });
  a.connect(b, first.socket, first.onread);
  b.connect(a, second.socket, second.onread);
  return [first.socket, second.socket];
}
