/**
 * Telling an end from a reset. When data and a reset come in the same turn of the event loop, libuv reads the data and
 * reports an orderly end: a program that crashed would look like one that was done. But the system still tells whoever
 * writes, even if it is nothing.
 */
import type { Socket } from "node:net";
import { DirectSocket } from "./direct-read.ts";
import { isTcp } from "./reset.ts";

const NOTHING = new Uint8Array(0);

/**
 * Calls `ended` if a socket that has just reported its end was not reset; one that was is destroyed with the system's
 * error. Where that can't be found out, because our side has ended already, `ended` is called at once; so it is for
 * UNIX sockets, which have no reset, unless a write has failed.
 */
export function confirmEnd(socket: Socket, ended: () => void): void {
  // One that is just closed may have ended its other direction in order, too.
  const failed = () =>
    socket.errored !== null || (socket instanceof DirectSocket && socket.writeError !== undefined);
  if (failed()) return;
  if (!socket.writable || !isTcp(socket)) {
    ended();
  } else if (socket.writableLength > 0) {
    // The pending write fails in this turn of the event loop, if the socket was reset.
    setImmediate(() => {
      if (!failed()) ended();
    });
  } else {
    socket.write(NOTHING, (error) => {
      if (!error) ended();
    });
  }
}
