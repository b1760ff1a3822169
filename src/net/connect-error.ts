/** No connection came about. */
import { SpipedError } from "../errors.ts";

/** Why no connection to a target came about. */
export type ConnectErrorCode = "ERR_SPIPED_CONNECT" | "ERR_SPIPED_CONNECT_TIMEOUT";

/** None of the addresses could be connected to; `cause` is the last address' error. */
export class ConnectError extends SpipedError {
  declare readonly code: ConnectErrorCode;

  constructor(code: ConnectErrorCode, message: string, options?: ErrorOptions) {
    super(code, message, options);
  }
}
