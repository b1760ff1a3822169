/**
 * Handles of the process under test: what Node's sockets and servers use instead of libuv's TCP handles. They behave as
 * libuv does on Linux: which reads one poll makes, which callbacks follow in which iteration, which errors are reported
 * by which call.
 */

import { AsyncLocalStorage } from "node:async_hooks";
import type { EventLoop, Watcher } from "./event-loop.ts";
import type { Descriptors, Endpoint, ListeningPort, Network, SocketAddress } from "./network.ts";
import { EAGAIN, ECANCELED, EINVAL, EMFILE, ENOTCONN, EOF } from "./system-errors.ts";

/** Node's object for a connect, a write or a half-close in progress. */
interface Request {
  oncomplete?(this: Request, status: number, ...details: unknown[]): void;
}

/** Node's request for a write; null from Node 26 on, where the handle creates it if the write does not complete. */
interface WriteRequest extends Request {
  /** Node 26: the status of a write that has completed before `oncomplete` is set. */
  writeStatus?: number | null;
}

/** Where a handle of the process gets its network from. */
export interface Host {
  readonly network: Network;
  readonly loop: EventLoop;
  readonly descriptors: Descriptors;
  /** Whether the libuv takes a reset behind data for the end, as that of Node 20 and 22 does. */
  readonly takesHangUpForEnd: boolean;
}

/** Node's bindings, of which its sockets read the results of calls. */
interface StreamBinding {
  readonly streamBaseState: Int32Array;
  readonly kReadBytesOrError: number;
  readonly kBytesWritten: number;
  readonly kLastWriteWasAsync: number;
  /** From Node 26 on. */
  readonly kLastWriteErr?: number;
}

/** Returns one of Node's internal bindings. */
function nodeBinding(name: string): unknown {
  const { noDeprecation } = process;
  process.noDeprecation = true;
  const result = (process as unknown as { binding(name: string): unknown }).binding(name);
  process.noDeprecation = noDeprecation === true;
  return result;
}

const streams = nodeBinding("stream_wrap") as StreamBinding;
const state = streams.streamBaseState;

/** Number of reads that libuv makes of a socket before it polls the others. */
const READS_PER_POLL = 32;

let lastAsyncId = 2 ** 40;

/** A handle that Node accepts where it tests for one of its own: `instanceof TCP`. */
class TcpHandle {
  static {
    const { TCP } = nodeBinding("tcp_wrap") as { TCP: object };
    const isReal = Function.prototype[Symbol.hasInstance].bind(TCP);
    Object.defineProperty(TCP, Symbol.hasInstance, {
      configurable: true,
      value: (value: unknown) => value instanceof TcpHandle || isReal(value),
    });
  }

  /** An ID that no resource of Node's has. */
  getAsyncId(): number {
    lastAsyncId += 1;
    return lastAsyncId;
  }

  ref(): void {}

  unref(): void {}
}

function writeAddress(out: object, { host, port }: SocketAddress): number {
  Object.assign(out, { address: host, port, family: "IPv4" });
  return 0;
}

/** The handle of a connected or connecting socket. */
export class SimulatedHandle extends TcpHandle implements Watcher {
  readonly #host: Host;
  /** Address from which it connects. */
  readonly #from: string;
  readonly #onConnecting: (port: number) => void;
  /** As with Node's own handles, callbacks run in the asynchronous context in which the handle was created. */
  readonly #inContext = AsyncLocalStorage.snapshot();
  #endpoint: Endpoint | undefined;
  #fd = -1;
  /** Set by Node. */
  reading = false;
  onread: ((this: SimulatedHandle, bytes: undefined) => unknown) | undefined = undefined;
  bytesRead = 0;
  bytesWritten = 0;
  #readsNow = false;
  #canRead = true;
  #canWrite = true;
  #isClosing = false;
  #buffer: Uint8Array | undefined;
  /** Writes that are not accepted in full; the first one may be in part. */
  readonly #writes: { readonly request: WriteRequest; bytes: Buffer }[] = [];
  #shutdown: Request | undefined;
  #connect: Request | undefined;
  #connectStatus: number | undefined;
  /** True if the half-close is due in the next iteration. */
  #isFed = false;

  /**
   * @param from - the address from which it connects.
   * @param onConnecting - called with the port from which it connects.
   */
  constructor(host: Host, from: string, onConnecting: (port: number) => void = () => {}) {
    super();
    this.#host = host;
    this.#from = from;
    this.#onConnecting = onConnecting;
  }

  /** Returns the handle of an accepted connection, whose descriptor it owns. */
  static accept(host: Host, endpoint: Endpoint): SimulatedHandle {
    const handle = new SimulatedHandle(host, endpoint.local.host);
    handle.#fd = host.descriptors.number(endpoint);
    handle.#attach(endpoint);
    return handle;
  }

  get endpoint(): Endpoint | undefined {
    return this.#endpoint;
  }

  get fd(): number {
    return this.#fd;
  }

  get isOpen(): boolean {
    return !this.#isClosing;
  }

  // What Node calls.

  useUserBuffer(buffer: Uint8Array): void {
    this.#buffer = buffer;
  }

  readStart(): number {
    if (this.#isClosing) return EINVAL;
    if (!this.#canRead) return ENOTCONN;
    this.#readsNow = true;
    this.#host.loop.watch(this);
    return 0;
  }

  readStop(): number {
    this.#readsNow = false;
    return 0;
  }

  writeBuffer(request: WriteRequest | null, bytes: Buffer): number | WriteRequest {
    let written = 0;
    if (this.#writes.length === 0) {
      const result = this.#endpoint!.write(bytes);
      if (result < 0 && result !== EAGAIN) return this.#endWrite(0, result);
      written = Math.max(result, 0);
    }
    this.bytesWritten += bytes.length;
    if (written === bytes.length) return this.#endWrite(bytes.length, 0);
    const pending = request ?? { writeStatus: null };
    this.#writes.push({ request: pending, bytes: bytes.subarray(written) });
    this.#host.loop.watch(this);
    state[streams.kBytesWritten] = bytes.length;
    state[streams.kLastWriteWasAsync] = 1;
    if (streams.kLastWriteErr !== undefined) state[streams.kLastWriteErr] = 0;
    return request === null ? pending : 0;
  }

  writev(
    request: WriteRequest | null,
    chunks: readonly Buffer[],
    allBuffers: boolean,
  ): number | WriteRequest {
    if (!allBuffers) throw new Error("simulated sockets write buffers only");
    return this.writeBuffer(request, Buffer.concat(chunks));
  }

  writeLatin1String(request: WriteRequest | null, text: string): number | WriteRequest {
    return this.writeBuffer(request, Buffer.from(text, "latin1"));
  }

  writeUtf8String(request: WriteRequest | null, text: string): number | WriteRequest {
    return this.writeBuffer(request, Buffer.from(text));
  }

  shutdown(request: Request): number {
    if (!this.#canWrite || this.#shutdown !== undefined || this.#isClosing) return ENOTCONN;
    this.#canWrite = false;
    this.#shutdown = request;
    this.#isFed = true;
    this.#host.loop.watch(this);
    return 0;
  }

  connect(request: Request, host: string, port: number): number {
    const { descriptors, network, loop } = this.#host;
    const status = descriptors.open();
    if (status !== 0) return status;
    this.#connect = request;
    const endpoint = network.connect(this.#from, { host, port }, (outcome) => {
      if (this.#isClosing) return;
      this.#connectStatus = outcome;
      loop.watch(this);
    });
    this.#fd = descriptors.number(endpoint);
    this.#attach(endpoint);
    this.#onConnecting(endpoint.local.port);
    return 0;
  }

  close(onClosed?: () => void): void {
    if (this.#isClosing) return;
    this.#endpoint?.close();
    this.#finish(onClosed);
  }

  reset(onClosed: () => void): number {
    if (this.#isClosing) return 0;
    if (this.#shutdown !== undefined) return EINVAL;
    this.#endpoint?.reset();
    this.#finish(onClosed);
    return 0;
  }

  setNoDelay(): number {
    return 0;
  }

  setKeepAlive(enable: boolean): number {
    if (this.#endpoint !== undefined) this.#endpoint.keepAlive = enable;
    return 0;
  }

  getpeername(out: object): number {
    const endpoint = this.#endpoint;
    if (endpoint?.peer === undefined || endpoint.isDead) return ENOTCONN;
    return writeAddress(out, endpoint.remote);
  }

  getsockname(out: object): number {
    return writeAddress(out, this.#endpoint?.local ?? { host: "0.0.0.0", port: 0 });
  }

  // What the loop calls.

  get isReady(): boolean {
    if (this.#isClosing) return false;
    if (this.#connect !== undefined) return this.#connectStatus !== undefined;
    if (this.#isFed) return true;
    const endpoint = this.#endpoint!;
    const writes = this.#writes.length > 0;
    if (!this.#readsNow && !writes) return false;
    if (endpoint.hasHungUp || endpoint.hasError) return true;
    return (this.#readsNow && endpoint.isReadable) || (writes && endpoint.isWritable);
  }

  /** libuv's `uv__stream_io`. */
  *handleEvents(): Generator<undefined> {
    if (!this.isReady) return;
    const endpoint = this.#endpoint!;
    if (this.#connect !== undefined) {
      yield* this.#finishConnect();
      return;
    }
    const hasHungUp = endpoint.hasHungUp;
    const isPartial = { value: false };
    if (hasHungUp || endpoint.hasError || endpoint.isReadable) yield* this.#read(isPartial);
    if (this.#isClosing) return;
    // It does so if it did not fill the last buffer.
    if (this.#host.takesHangUpForEnd && hasHungUp && this.#readsNow && isPartial.value) {
      this.#readsNow = false;
      this.#deliver(EOF);
      yield;
    }
    if (this.#isClosing) return;
    yield* this.#write();
    if (this.#isClosing || this.#writes.length > 0) return;
    this.#isFed = false;
    if (this.#shutdown === undefined) return;
    const request = this.#shutdown;
    this.#shutdown = undefined;
    this.#complete(request, endpoint.shutdown());
    yield;
  }

  *#finishConnect(): Generator<undefined> {
    const request = this.#connect!;
    const status = this.#connectStatus!;
    this.#connect = undefined;
    this.#host.network.trace.record("connected", this.#endpoint!.id, status);
    this.#inContext(() => request.oncomplete!(status, this, request, true, true));
    yield;
  }

  *#read(isPartial: { value: boolean }): Generator<undefined> {
    for (let count = READS_PER_POLL; count > 0 && this.#readsNow && !this.#isClosing; count -= 1) {
      const buffer = this.#buffer!;
      const length = this.#endpoint!.read(buffer);
      if (length === EAGAIN) return;
      if (length <= 0) {
        this.#readsNow = false;
        if (length < 0) {
          this.#canRead = false;
          this.#canWrite = false;
        }
        this.#deliver(length === 0 ? EOF : length);
        yield;
        return;
      }
      this.bytesRead += length;
      this.#deliver(length);
      yield;
      if (length < buffer.length) {
        isPartial.value = true;
        return;
      }
    }
  }

  /** Passes a read, its error or the end to Node, which may return another buffer. */
  #deliver(length: number): void {
    this.#host.network.trace.record("read", this.#endpoint!.id, length);
    state[streams.kReadBytesOrError] = length;
    const buffer = this.onread!.call(this, undefined);
    if (buffer instanceof Uint8Array) this.#buffer = buffer;
  }

  *#write(): Generator<undefined> {
    const endpoint = this.#endpoint!;
    while (!this.#isClosing) {
      const first = this.#writes[0];
      if (first === undefined) return;
      const result = endpoint.write(first.bytes);
      if (result === EAGAIN) return;
      if (result >= 0) first.bytes = first.bytes.subarray(result);
      if (result >= 0 && first.bytes.length > 0) continue;
      this.#writes.shift();
      this.#host.network.trace.record("written", endpoint.id, Math.min(result, 0));
      this.#complete(first.request, Math.min(result, 0));
      yield;
    }
  }

  #attach(endpoint: Endpoint): void {
    this.#endpoint = endpoint;
    endpoint.onChange = () => this.#host.loop.watch(this);
  }

  #endWrite(bytes: number, status: number): number {
    state[streams.kBytesWritten] = bytes;
    state[streams.kLastWriteWasAsync] = 0;
    return status;
  }

  #complete(request: WriteRequest, status: number): void {
    if (request.oncomplete === undefined) request.writeStatus = status;
    else request.oncomplete(status, this, undefined);
  }

  #finish(onClosed: (() => void) | undefined): void {
    const { loop, descriptors, network } = this.#host;
    this.#isClosing = true;
    this.#readsNow = false;
    network.trace.record("close", this.#endpoint?.id ?? 0);
    if (this.#fd >= 0) descriptors.close(this.#fd);
    this.#fd = -1;
    loop.unwatch(this);
    loop.close(this.#runCloseCallbacks(onClosed));
  }

  *#runCloseCallbacks(onClosed: (() => void) | undefined): Generator<undefined> {
    const canceled: WriteRequest[] = this.#writes.splice(0).map(({ request }) => request);
    if (this.#shutdown !== undefined) canceled.push(this.#shutdown);
    this.#shutdown = undefined;
    if (this.#connect !== undefined) {
      const request = this.#connect;
      this.#connect = undefined;
      request.oncomplete!(ECANCELED, this, request, true, true);
      yield;
    }
    for (const request of canceled) {
      this.#complete(request, ECANCELED);
      yield;
    }
    onClosed?.();
    yield;
  }
}

/** The handle of a listening socket. */
export class SimulatedListener extends TcpHandle implements Watcher {
  readonly #host: Host;
  readonly #address: SocketAddress;
  readonly #onHandle: (handle: SimulatedHandle) => void;
  #port: ListeningPort | undefined;
  /** Set by Node. */
  onconnection: ((this: SimulatedListener, status: number, handle?: SimulatedHandle) => void) | undefined =
    undefined;
  readonly fd = 3;

  /** @param onHandle - called with the handle of each accepted connection. */
  constructor(host: Host, address: SocketAddress, onHandle: (handle: SimulatedHandle) => void) {
    super();
    this.#host = host;
    this.#address = address;
    this.#onHandle = onHandle;
  }

  listen(backlog: number): number {
    const { network, loop } = this.#host;
    // The kernel reduces it to net.core.somaxconn.
    this.#port = network.listen(this.#address, Math.min(backlog, 4096));
    this.#port.onChange = () => loop.watch(this);
    return 0;
  }

  close(onClosed?: () => void): void {
    this.#port?.close();
    this.#port = undefined;
    this.#host.loop.unwatch(this);
    this.#host.loop.close(callOnce(onClosed));
  }

  getsockname(out: object): number {
    return writeAddress(out, this.#address);
  }

  get isReady(): boolean {
    return this.#port !== undefined && this.#port.queue.length > 0;
  }

  /** Accepts all that are queued, as libuv does. */
  *handleEvents(): Generator<undefined> {
    const { network, descriptors } = this.#host;
    while (this.#port !== undefined) {
      const endpoint = this.#port.queue.shift();
      if (endpoint === undefined) return;
      if (descriptors.open() === EMFILE) {
        // libuv's reserve descriptor accepts and closes it without a report.
        network.trace.record("dropped", endpoint.id);
        endpoint.close();
        continue;
      }
      network.trace.record("accept", endpoint.id);
      const handle = SimulatedHandle.accept(this.#host, endpoint);
      this.#onHandle(handle);
      this.onconnection!(0, handle);
      yield;
    }
  }
}

function* callOnce(callback: (() => void) | undefined): Generator<undefined> {
  callback?.();
  yield;
}
