/**
 * Reading sockets into one buffer that all of them share, instead of a new one for each read: Node's `onread`. What
 * arrives is sealed or opened before the next read, so one buffer is enough; bulk transfers gain 11 to 16 %.
 *
 * Such a socket is an ordinary stream until somebody takes its reads over.
 */
import { connect, type NetConnectOpts, Socket, type SocketConstructorOpts } from "node:net";
import { LONGEST_READ, nextReadSize } from "./turn.ts";

/**
 * Takes what one read gave. The bytes are valid during the call only.
 *
 * @returns false to stop reading, until `resume()`.
 */
export type Reader = (chunk: Buffer) => boolean;

const shared = Buffer.allocUnsafeSlow(LONGEST_READ);
/** Its beginnings that reads go into, by size. */
const starts = new Map<number, Buffer>();
const readers = new WeakMap<Socket, Reader>();

/** Where the next read of the socket that was read last goes. */
function nextBuffer(): Buffer {
  const size = nextReadSize();
  let start = starts.get(size);
  if (start === undefined) {
    start = shared.subarray(0, size);
    starts.set(size, start);
  }
  return start;
}

/** The `onread` option for a socket that is about to be made. */
function onread(socket: () => Socket) {
  return {
    buffer: nextBuffer,
    callback(length: number) {
      const self = socket();
      const chunk = shared.subarray(0, length);
      const reader = readers.get(self);
      return reader === undefined ? self.push(Buffer.from(chunk)) : reader(chunk);
    },
  };
}

/** As `net.connect`, for a socket whose reads can be taken over. */
export function connectDirect(options: NetConnectOpts): Socket {
  const socket: Socket = connect({ ...options, onread: onread(() => socket) });
  return socket;
}

/**
 * An accepted socket, made anew so that its reads can be taken over: `net.Server` has no option for it. If this
 * version of Node does not show the handle, the socket is returned as it is, and read in the ordinary way.
 *
 * @param accepted half-open capable and paused, with nothing read yet.
 */
export function adoptDirect(accepted: Socket): Socket {
  const holder = accepted as unknown as { _handle?: object | null };
  const handle = holder._handle;
  if (!handle) return accepted;
  holder._handle = null;
  accepted.destroy();
  const options = { handle, allowHalfOpen: true, pauseOnCreate: true, onread: onread(() => socket) };
  const socket: Socket = new Socket(options as SocketConstructorOpts);
  return socket;
}

/**
 * Hands all that a socket receives from now on, and what it has buffered, to `reader`. The socket must be paused;
 * `resume()` starts it.
 *
 * @returns a function that gives the reads back.
 */
export function takeReads(socket: Socket, reader: Reader): () => void {
  readers.set(socket, reader);
  // What is buffered comes as events, and so does everything from a socket that was not made here.
  const onData = (chunk: Buffer) => {
    if (!reader(chunk)) socket.pause();
  };
  socket.on("data", onData);
  return () => {
    readers.delete(socket);
    socket.off("data", onData);
  };
}
