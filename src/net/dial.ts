/** Connecting to a target (Tarsnap's `sock_connect`): its addresses in order, the next one when one fails. */
import type { Socket } from "node:net";
import type { ResolvedAddress } from "./address.ts";
import { ConnectError } from "./connect-error.ts";
import { connectDirect } from "./direct-read.ts";
import { onAbort } from "./on-abort.ts";
import { arrivalDeadline } from "./timers.ts";

/** Where and how to connect. */
export interface DialOptions {
  /** Tried in this order. */
  readonly addresses: readonly ResolvedAddress[];
  /** For all attempts together, ms; `Infinity` waits for ever. */
  readonly timeout: number;
  /** Local address to connect from. */
  readonly bind?: ResolvedAddress | undefined;
  /** Ends the attempt with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
  /** Called with each address before it is tried. */
  readonly onAttempt?: (address: ResolvedAddress) => void;
  /** Told of each address that failed. */
  readonly onAttemptFailed?: (address: ResolvedAddress, error: NodeJS.ErrnoException) => void;
}

/**
 * Connects to the first address that lets us.
 *
 * @returns the connected socket, half-open capable and paused, with nothing read yet. The caller must listen for its errors at once.
 * @throws ConnectError `ERR_SPIPED_CONNECT` when every address failed, `ERR_SPIPED_CONNECT_TIMEOUT` when time ran out.
 */
export function dial(options: DialOptions): Promise<Socket> {
  const { addresses, timeout, signal } = options;
  return new Promise((resolve, reject) => {
    let socket: Socket | undefined;
    const settle = (outcome: () => void) => {
      cancelDeadline();
      stopWatching();
      outcome();
    };
    const giveUp = (error: unknown) => {
      settle(() => reject(error));
      socket?.destroy();
    };
    const abort = () => giveUp(signal?.reason);
    const cancelDeadline = arrivalDeadline(timeout, () =>
      giveUp(new ConnectError("ERR_SPIPED_CONNECT_TIMEOUT", `no connection within ${timeout / 1000} s`)),
    );
    const stopWatching = onAbort(signal, abort);

    const attempt = (index: number, cause?: Error) => {
      const address = addresses[index];
      if (address === undefined) {
        const why = cause === undefined ? "no address" : cause.message;
        giveUp(new ConnectError("ERR_SPIPED_CONNECT", `could not connect: ${why}`, { cause }));
        return;
      }
      options.onAttempt?.(address);
      const current = open(address, options.bind);
      socket = current;
      const failed = (error: NodeJS.ErrnoException) => {
        options.onAttemptFailed?.(address, error);
        attempt(index + 1, error);
      };
      current.once("error", failed);
      current.once("connect", () => {
        current.off("error", failed);
        settle(() => resolve(current));
      });
    };

    if (signal?.aborted) abort();
    else attempt(0);
  });
}

function open(address: ResolvedAddress, bind: ResolvedAddress | undefined): Socket {
  if (address.kind === "unix") return connectDirect({ path: address.path });
  const { host, port, family } = address;
  const local = bind?.kind === "tcp" ? { localAddress: bind.host, localPort: bind.port } : {};
  return connectDirect({ host, port, family, ...local });
}
