/**
 * Distinguishes EOF from a reset. If data and a reset arrive in the same event-loop iteration, the libuv of Node 20 and
 * 22 reads the data and reports EOF, so a peer that crashed would look like one that finished. The next system call
 * still fails with the error: a write, even of zero bytes, or a read if this side has ended.
 */
import { readSync } from "node:fs";
import type { Socket } from "node:net";
import { unsentBytes, writeErrorOf } from "./direct-read.ts";
import { isTcp } from "./reset.ts";

const EMPTY = new Uint8Array(0);
/** What is read after EOF: nothing. Linux reports no error to a read of zero bytes. */
const nothing = new Uint8Array(1);

/**
 * Calls `onEof` if a socket that has just emitted 'end' was not reset. A socket that was reset is destroyed with the
 * system error. UNIX sockets have no reset: `onEof` is called immediately. If a write has already failed, `onEof` is not
 * called.
 */
export function confirmEof(socket: Socket, onEof: () => void): void {
  // Does not test `destroyed`: a closed socket may have ended both directions cleanly.
  const failed = () => socket.errored !== null || writeErrorOf(socket) !== undefined;
  if (failed()) return;
  if (!isTcp(socket)) {
    onEof();
  } else if (!socket.writable) {
    const error = readError(socket);
    if (error === undefined) onEof();
    else socket.destroy(error);
  } else if (unsentBytes(socket) > 0) {
    // If the socket was reset, the pending write fails in this event-loop iteration.
    setImmediate(() => {
      if (!failed()) onEof();
    });
  } else {
    socket.write(EMPTY, (error) => {
      if (!error) onEof();
    });
  }
}

/** Node's internal handle of a socket. */
interface HandleHolder {
  readonly _handle?: { readonly fd?: number } | null;
}

/**
 * Returns the error that a read reports after EOF; undefined if there is none. This is undocumented: if this version of
 * Node does not expose the descriptor, an error is not detected.
 */
function readError(socket: Socket): Error | undefined {
  const fd = (socket as HandleHolder)._handle?.fd ?? -1;
  if (fd < 0) return undefined;
  try {
    readSync(fd, nothing);
    return undefined;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EAGAIN" ? undefined : (error as Error);
  }
}
