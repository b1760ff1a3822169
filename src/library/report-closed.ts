/** Reports the opening and the close of a stream of the library as events. */
import { SpipedError } from "../errors.ts";
import { type Closing, closingFor } from "../tunnel/close-reason.ts";
import type { ConnectionRecord } from "../tunnel/connection-event.ts";
import { closingAfter, isSystemError } from "../tunnel/find-close-reason.ts";
import type { SpipedSocket } from "../tunnel/spiped-socket.ts";
import { ConnectionLostError } from "../tunnel/tunnel-error.ts";

/** Reports that data can flow, and the close when it comes. */
export function reportUntilClosed(socket: SpipedSocket, record: ConnectionRecord): void {
  record.report("opened");
  socket.once("close", () => {
    const { errored } = socket;
    if (errored === null) record.reportClosed(closingFor("closed"));
    else
      record.reportClosed(
        closingOf(isSystemError(errored) ? new ConnectionLostError("encrypted", errored) : errored),
      );
  });
}

/** Returns the end of a connection; an error that is not ours was given by the program, to abort it. */
export function closingOf(error: unknown): Closing {
  return error instanceof SpipedError || isSystemError(error) ? closingAfter(error) : closingFor("aborted");
}
