/**
 * Distinguishes EOF from a reset. If data and a reset arrive in the same event-loop iteration, libuv (in Node 20 and 22)
 * reads the data and reports EOF, so a peer that crashed would look like one that finished. A write, even of zero bytes,
 * still fails with the system error; if this side has ended, so that nothing can be written, a read of the descriptor
 * does.
 */
import { readSync } from "node:fs";
import type { Socket } from "node:net";
import { unsentBytes, writeErrorOf } from "./direct-read.ts";
import { isTcp } from "./reset.ts";

const EMPTY = new Uint8Array(0);

/**
 * Calls `onEof` if a socket that has just emitted 'end' was not reset. A socket that was reset is destroyed with the
 * system error. UNIX sockets have no reset. If a write has already failed, `onEof` is not called.
 */
export function confirmEof(socket: Socket, onEof: () => void): void {
  // Does not test `destroyed`: a closed socket may have ended both directions cleanly.
  const failed = () => socket.errored !== null || writeErrorOf(socket) !== undefined;
  if (failed()) return;
  if (!isTcp(socket)) {
    onEof();
  } else if (!socket.writable) {
    const error = readErrorOf(socket);
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

/**
 * Returns the error of a read from a socket at its end. The descriptor is undocumented: a version of Node that does not
 * expose it cannot detect the reset.
 */
function readErrorOf(socket: Socket): Error | undefined {
  const { _handle: handle } = socket as Socket & { readonly _handle?: { readonly fd?: number } | null };
  const { fd = -1 } = handle ?? {};
  if (fd < 0) return undefined;
  try {
    readSync(fd, new Uint8Array(1));
    return undefined;
  } catch (error) {
    // Nothing to read yet: the socket was ended by other means.
    return (error as NodeJS.ErrnoException).code === "EAGAIN" ? undefined : (error as Error);
  }
}
