/** Errors of a connection that are neither the protocol's nor the system's own. */
import { SpipedError } from "../errors.ts";
import { ConnectError } from "../net/connect-error.ts";

/** A connection to a target was not tried: none of those before it came about within the time limit. */
export class QueueTimeoutError extends ConnectError {
  /** @param timeout ms */
  constructor(timeout: number) {
    super("ERR_SPIPED_CONNECT_TIMEOUT", `no connection within ${timeout / 1000} s`);
  }
}

/** A socket broke while data was flowing; `cause` is the system's error. */
export class BrokenPipeError extends SpipedError {
  /** Which of the two sockets it was: the encrypted one (`wire`) or the other (`plain`). */
  readonly side: "wire" | "plain";

  constructor(side: "wire" | "plain", cause: Error | null) {
    super("ERR_SPIPED_BROKEN", cause?.message ?? "socket closed", { cause });
    this.side = side;
  }
}

/** Nothing was sent or received for too long. */
export class IdleError extends SpipedError {
  /** @param timeout ms */
  constructor(timeout: number) {
    super("ERR_SPIPED_IDLE", `idle for ${timeout / 1000} s`);
  }
}
