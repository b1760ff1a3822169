import type { Socket } from "node:net";
import { unsentBytes } from "./direct-read.ts";

/** Returns true for a TCP socket, on which the peer can distinguish a reset from EOF. */
export function isTcp(socket: Socket): boolean {
  return "port" in socket.address();
}

/** Closes a TCP socket with RST, so that its peer does not see EOF. UNIX sockets have no reset and are just closed. */
export function reset(socket: Socket): void {
  if (!isTcp(socket)) {
    socket.destroy();
    return;
  }
  const shuttingDown = socket.writableEnded && unsentBytes(socket) === 0 && !socket.writableFinished;
  if (socket.destroyed || !shuttingDown) {
    socket.resetAndDestroy();
    return;
  }
  // libuv cannot reset a socket during its half-close, and a socket on which Node tries that is never closed: its
  // descriptor and slot would leak. A half-close takes one event-loop iteration; if it fails, the socket is destroyed.
  socket.pause();
  socket.once("finish", () => socket.resetAndDestroy());
}
