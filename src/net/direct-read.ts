/**
 * Reads all sockets into one shared buffer (Node's `onread`) instead of allocating one per read, and writes past the
 * queue of the stream. Received data is encrypted or decrypted before the next read, so one buffer is enough; bulk
 * transfers are 11 to 16 % faster. A write that skips the queue costs half as much, which counts for short messages.
 *
 * Such a socket is an ordinary stream until a reader is attached.
 */
import { type NetConnectOpts, Socket, type SocketConnectOpts, type SocketConstructorOpts } from "node:net";
import { MAX_READ_BYTES, nextReadSize, SHORT_READ_BYTES } from "./fairness.ts";

/**
 * Receives the bytes of one read: the first `length` of `buffer`. They are valid only during the call.
 *
 * @returns false to stop reading until `resume()`.
 */
export type Reader = (buffer: Uint8Array, length: number) => boolean;

/** Called when a write has succeeded or failed. */
export type WriteCallback = (error?: Error | null) => void;

/** What sockets read into, and a view of its start for short reads. */
interface ReadBuffer {
  readonly long: Buffer;
  readonly short: Buffer;
}

let current: ReadBuffer | undefined;

/** Makes all sockets read into `buffer`, which has at least `MAX_READ_BYTES`, from the next time they select a buffer. */
export function setReadBuffer(buffer: Buffer): void {
  if (current?.long === buffer) return;
  current = { long: buffer, short: buffer.subarray(0, SHORT_READ_BYTES) };
}

function readBuffer(): ReadBuffer {
  if (current === undefined) setReadBuffer(Buffer.allocUnsafeSlow(MAX_READ_BYTES));
  return current!;
}

/** What a socket can do besides being a stream. */
export interface DirectIo {
  /** Whether write errors are deferred until the end of the readable side. */
  deferWriteErrors: boolean;
  /** Receives the data of each read; undefined while the socket is an ordinary stream. */
  reader: Reader | undefined;
  /** The deferred error of a failed write; 'writeError' is emitted when it is set. */
  readonly writeError: Error | undefined;
  /** Bytes of `writeNow` that are not accepted yet; `writableLength` does not count them. */
  readonly pendingBytes: number;
  /** Whether `writeNow` may be called: nothing is queued or pending, and the socket has not been ended. */
  readonly canWriteNow: boolean;
  /**
   * Writes past the stream's queue; `canWriteNow` must be true. `end()` waits until the bytes are accepted.
   *
   * @param bytes - must not change until `onWritten` is called.
   * @param onWritten - called when the kernel has accepted all bytes, often before this method returns, or with the
   * error of the write.
   */
  writeNow(bytes: Buffer, onWritten: WriteCallback): void;
}

/** Returns a socket that supports direct reads and writes as such; undefined for other sockets. */
export function directIo(socket: Socket): (Socket & DirectIo) | undefined {
  return "writeNow" in socket ? (socket as Socket & DirectIo) : undefined;
}

/**
 * A socket to which a reader can be attached, whose writes can skip the stream's queue, and on which a failed write does
 * not discard received data.
 *
 * When a peer resets a connection, the kernel keeps the data received before; but Node destroys a socket as soon as a
 * write fails. So this class defers the error of a write until all data has been read. Unless `deferWriteErrors` is set
 * to false, the caller must keep reading meanwhile.
 */
export class DirectSocket extends Socket implements DirectIo {
  deferWriteErrors = true;
  reader: Reader | undefined;
  #writeError: Error | undefined;
  /** Bytes of the last `writeNow` that are not accepted yet. */
  #pendingBytes = 0;
  #onWritten: WriteCallback | undefined;
  #afterPending: (() => void) | undefined;

  get writeError(): Error | undefined {
    return this.#writeError;
  }

  get pendingBytes(): number {
    return this.#pendingBytes;
  }

  get canWriteNow(): boolean {
    return this.#pendingBytes === 0 && this.writableLength === 0 && !this.writableEnded;
  }

  writeNow(bytes: Buffer, onWritten: WriteCallback): void {
    this.#pendingBytes = bytes.length;
    this.#onWritten = onWritten;
    super._write(bytes, "buffer" as BufferEncoding, this.#finishWriteNow);
  }

  readonly #finishWriteNow: WriteCallback = (error) => {
    const onWritten = this.#onWritten!;
    if (error) {
      // The bytes stay pending: nothing can be written any more.
      onWritten(error);
      this.#deferError((deferred) => this.destroy(deferred ?? undefined))(error);
      return;
    }
    this.#pendingBytes = 0;
    onWritten();
    this.#afterPending?.();
  };

  override _write(chunk: unknown, encoding: BufferEncoding, callback: WriteCallback): void {
    super._write(chunk, encoding, this.#deferError(callback));
  }

  override _writev(chunks: { chunk: unknown; encoding: BufferEncoding }[], callback: WriteCallback): void {
    super._writev!(chunks, this.#deferError(callback));
  }

  /** Half-closes the socket once no bytes are pending. A socket that is half-closing cannot be reset. */
  override _final(callback: WriteCallback): void {
    if (this.#pendingBytes === 0) super._final(callback);
    else this.#afterPending = () => super._final(callback);
  }

  #deferError(callback: WriteCallback): WriteCallback {
    return (error) => {
      if (!error || !this.deferWriteErrors || this.readableEnded || this.destroyed) {
        callback(error);
        return;
      }
      this.#writeError = error;
      // Also without an end, since a write holds its buffer until it is complete.
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

/** Returns the bytes written to a socket that the kernel has not accepted yet. */
export function unsentBytes(socket: Socket): number {
  return socket.writableLength + (directIo(socket)?.pendingBytes ?? 0);
}

/** Returns the deferred error of a failed write; undefined if writes are not deferred. */
export function writeErrorOf(socket: Socket): Error | undefined {
  return directIo(socket)?.writeError;
}

/** What Node calls for the reads of a socket. */
export interface OnRead {
  /** Returns the buffer for the next read; undefined to keep the last one. */
  buffer(): Buffer | undefined;
  /** @returns false to stop reading. */
  callback(length: number): boolean;
}

/**
 * Creates a socket.
 *
 * @param options - as for Node's sockets, with an internal handle.
 */
export function createSocket(options: { handle?: object; pauseOnCreate?: boolean }): {
  socket: DirectSocket;
  onread: OnRead;
} {
  // Node requests the first buffer in the constructor, before this is set.
  let socket: DirectSocket | undefined;
  let buffer = readBuffer();
  let view = buffer.long;
  /** Whether Node keeps the last buffer if it gets none: after a read. */
  let isKept = false;
  const onread: OnRead = {
    buffer() {
      const next = readBuffer();
      const isShort = socket?.reader !== undefined && nextReadSize() === SHORT_READ_BYTES;
      const nextView = isShort ? next.short : next.long;
      // Setting a buffer takes a tenth of the time of handling a short read.
      if (isKept && nextView === view) return undefined;
      buffer = next;
      view = nextView;
      return view;
    },
    callback(length: number) {
      isKept = true;
      const reader = socket!.reader;
      return reader === undefined
        ? socket!.push(Buffer.from(view.subarray(0, length)))
        : reader(buffer.long, length);
    },
  };
  // Node's types lack some of these options.
  const all = { ...options, allowHalfOpen: true, onread } as unknown as SocketConstructorOpts;
  socket = new DirectSocket(all);
  return { socket, onread };
}

/**
 * Connects like `net.connect`, with `allowHalfOpen` and support for `attachReader`. The socket stays unread until it is
 * resumed, so that if a target replies and resets immediately, the reader gets the reply before the reset.
 */
export function connectDirect(options: NetConnectOpts): Socket {
  const { socket } = createSocket({});
  socket.pause();
  return socket.connect(options as SocketConnectOpts);
}

/** Node's internal handle of a socket. */
interface HandleHolder {
  _handle: object | null;
}

/**
 * Returns a new socket for an accepted socket's handle, so that a reader can be attached: `net.Server` has no option
 * for `onread`. This is undocumented: if this version of Node does not expose the handle, or does not accept it, returns
 * the socket unchanged.
 *
 * @param accepted - a socket with `allowHalfOpen`, paused and unread.
 */
export function rewrapSocket(accepted: Socket): Socket {
  const holder = accepted as Partial<HandleHolder>;
  const handle = holder._handle;
  if (!handle) return accepted;
  const socket: DirectSocket & Partial<HandleHolder> = createSocket({ handle, pauseOnCreate: true }).socket;
  if (socket._handle !== handle) {
    socket.destroy();
    return accepted;
  }
  holder._handle = null;
  accepted.destroy();
  return socket;
}

/**
 * Passes the data that a socket has buffered, and all that it receives from now on, to `reader`. The socket must be
 * paused; `resume()` starts it.
 *
 * @returns a function that detaches the reader.
 */
export function attachReader(socket: Socket, reader: Reader): () => void {
  const direct = directIo(socket);
  if (direct !== undefined) direct.reader = reader;
  // Buffered data arrives as events, as does all data of other sockets.
  const onData = (chunk: Buffer) => {
    for (let start = 0; start < chunk.length; start += MAX_READ_BYTES) {
      const part = chunk.subarray(start, start + MAX_READ_BYTES);
      if (!reader(part, part.length)) socket.pause();
    }
  };
  socket.on("data", onData);
  return () => {
    if (direct !== undefined) direct.reader = undefined;
    socket.off("data", onData);
  };
}
