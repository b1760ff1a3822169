/** Error for a failed connection attempt. */
import { SpipedError } from "../errors.ts";

/** Reason for a failed connection attempt. */
export type ConnectErrorCode = "ERR_SPIPED_CONNECT" | "ERR_SPIPED_CONNECT_TIMEOUT";

/** No address accepted a connection; `cause` is the error of the last address tried. */
export class ConnectError extends SpipedError {
  declare readonly code: ConnectErrorCode;

  constructor(code: ConnectErrorCode, message: string, options?: ErrorOptions) {
    super(code, message, options);
  }
}
