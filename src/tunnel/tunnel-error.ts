/** Connection errors other than protocol and system errors. */
import { SpipedError } from "../errors.ts";
import { ConnectError } from "../net/connect-error.ts";

/** A connection to a target was not attempted: while it was queued, no other succeeded within the timeout. */
export class QueueTimeoutError extends ConnectError {
  /** @param timeout in ms. */
  constructor(timeout: number) {
    super("ERR_SPIPED_CONNECT_TIMEOUT", `no connection within ${timeout / 1000} s`);
  }
}

/** A socket failed while the pipe was running; `cause` is the system error, if any. */
export class ConnectionLostError extends SpipedError {
  /** The failed socket: the encrypted (`wire`) or the plaintext one (`plain`). */
  readonly side: "wire" | "plain";

  constructor(side: "wire" | "plain", cause: Error | null) {
    super("ERR_SPIPED_BROKEN", cause?.message ?? "socket closed", { cause });
    this.side = side;
  }
}

/** No data was transferred for longer than the idle timeout. */
export class IdleError extends SpipedError {
  /** @param timeout in ms. */
  constructor(timeout: number) {
    super("ERR_SPIPED_IDLE", `idle timeout (${timeout / 1000} s)`);
  }
}
