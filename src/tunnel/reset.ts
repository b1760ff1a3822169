import type { Socket } from "node:net";

/**
 * Closes a socket so that its peer can tell it from an orderly end: with RST over TCP. A UNIX socket has no such
 * thing and is just closed.
 */
export function reset(socket: Socket): void {
  if ("port" in socket.address()) socket.resetAndDestroy();
  else socket.destroy();
}
