/**
 * Distinguishes EOF from a reset. If data and a reset arrive in the same event-loop iteration, libuv reads the data and
 * reports EOF, so a peer that crashed would look like one that finished. A write, even of zero bytes, still fails with
 * the system error.
 */
import type { Socket } from "node:net";
import { unsentBytes, writeErrorOf } from "./direct-read.ts";
import { isTcp } from "./reset.ts";

const EMPTY = new Uint8Array(0);

/**
 * Calls `onEof` if a socket that has just emitted 'end' was not reset. A socket that was reset is destroyed with the
 * system error. If this side has ended, a reset cannot be detected and `onEof` is called immediately; likewise for UNIX
 * sockets, which have no reset. If a write has already failed, `onEof` is not called.
 */
export function confirmEof(socket: Socket, onEof: () => void): void {
  // Does not test `destroyed`: a closed socket may have ended both directions cleanly.
  const failed = () => socket.errored !== null || writeErrorOf(socket) !== undefined;
  if (failed()) return;
  if (!socket.writable || !isTcp(socket)) {
    onEof();
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
