import type { Socket } from "node:net";

/** True if a socket's peer can tell a reset from an orderly end. */
export function isTcp(socket: Socket): boolean {
  return "port" in socket.address();
}

/**
 * Closes a socket so that its peer can tell it from an orderly end: with RST over TCP. A UNIX socket has no such
 * thing and is just closed.
 */
export function reset(socket: Socket): void {
  if (!isTcp(socket)) {
    socket.destroy();
    return;
  }
  const shuttingDown = socket.writableEnded && socket.writableLength === 0 && !socket.writableFinished;
  if (socket.destroyed || !shuttingDown) {
    socket.resetAndDestroy();
    return;
  }
  // libuv refuses to reset a socket while its half-close is under way, and what Node has tried to close then is never
  // closed: descriptor and slot would be lost. It takes one turn of the event loop; if it fails, the socket is destroyed.
  socket.pause();
  socket.once("finish", () => socket.resetAndDestroy());
}
