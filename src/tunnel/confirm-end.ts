/**
 * Telling an end from a reset. When data and a reset come in the same turn of the event loop, libuv reads the data and
 * reports an orderly end: a program that crashed would look like one that was done. But the system still tells whoever
 * writes, even if it is nothing.
 */
import type { Socket } from "node:net";
import { isTcp } from "./reset.ts";

const NOTHING = new Uint8Array(0);

/**
 * Calls `ended` if a TCP socket that has just reported its end was not reset; one that was is destroyed with the
 * system's error. Where that can't be found out, because our side has ended already or has yet to be written, `ended` is
 * called at once: in the latter case the pending write will fail. So it is for UNIX sockets, which have no reset.
 */
export function confirmEnd(socket: Socket, ended: () => void): void {
  if (!socket.writable || socket.writableLength > 0 || !isTcp(socket)) {
    ended();
    return;
  }
  socket.write(NOTHING, (error) => {
    if (!error) ended();
  });
}
