import type { Socket } from "node:net";

const ignore = () => {};

/**
 * Adds a no-op 'error' listener, since an unhandled 'error' event ends the process; users of the socket see its errors
 * through `errored` and 'close'. All sockets share one listener: a closure created while opening a connection would
 * retain its scope as long as the connection lives.
 */
export function ignoreErrors(socket: Socket): void {
  socket.on("error", ignore);
}
