/** Connection errors other than protocol and system errors. */
import { SpipedError } from "../errors.ts";
import { ConnectError } from "../net/connect-error.ts";
import { CLOSE_REASONS, type CloseReason } from "./close-reason.ts";

/** A connection was closed before data could flow, by its client or because this side rejected it. */
export class RejectedError extends SpipedError {
  readonly reason: CloseReason;

  /** @param message - defaults to the reason's text in the log. */
  constructor(code: string, reason: CloseReason, message: string = CLOSE_REASONS[reason].text) {
    super(code, message);
    this.reason = reason;
  }
}

/** A connection to a target was not attempted: while it was queued, no other succeeded within the timeout. */
export class QueueTimeoutError extends ConnectError {
  /** @param timeout - in ms. */
  constructor(timeout: number) {
    super("ERR_SPIPED_CONNECT_TIMEOUT", `no connection within ${timeout / 1000} s`);
  }
}

/** A socket failed while data could flow; `cause` is the system error, if any. */
export class ConnectionLostError extends SpipedError {
  /** The failed socket. */
  readonly side: "encrypted" | "plaintext";

  /** @param message - defaults to that of `cause`. */
  constructor(
    side: "encrypted" | "plaintext",
    cause: Error | null,
    message: string = cause?.message ?? "socket closed",
  ) {
    super("ERR_SPIPED_BROKEN", message, { cause });
    this.side = side;
  }
}

/** No data was transferred for longer than the idle timeout. */
export class IdleError extends SpipedError {
  /** The idle timeout. */
  readonly seconds: number;

  /** @param timeout - in ms. */
  constructor(timeout: number) {
    const seconds = timeout / 1000;
    super("ERR_SPIPED_IDLE", `idle timeout (${seconds} s)`);
    this.seconds = seconds;
  }
}
