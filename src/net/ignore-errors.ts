import type { Socket } from "node:net";

const ignore = () => {};

/**
 * Has a socket's errors seen by whoever uses it, through `errored` and 'close': unlistened they would end the process.
 * The listener is the same for all sockets, for one that was made where a connection is opened would hold all that was
 * needed there for as long as the connection lives.
 */
export function ignoreErrors(socket: Socket): void {
  socket.on("error", ignore);
}
