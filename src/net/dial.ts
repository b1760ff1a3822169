/** Connects to a target (Tarsnap's `sock_connect`): tries its addresses in order until one succeeds. */
import type { Socket } from "node:net";
import type { ResolvedAddress } from "./address.ts";
import type { CloseSignal } from "./close-signal.ts";
import { ConnectError } from "./connect-error.ts";
import { connectDirect } from "./direct-read.ts";
import { onAbort } from "./on-abort.ts";
import { startArrivalTimeout } from "./timers.ts";

/** Options for `dial`. */
export interface DialOptions {
  /** Addresses in the order in which to try them. */
  readonly addresses: readonly ResolvedAddress[];
  /** Timeout for all attempts together, in ms; `Infinity` for none. */
  readonly timeout: number;
  /** Local address to connect from. */
  readonly bind?: ResolvedAddress | undefined;
  /** Aborts the attempt, which rejects with the signal's reason. */
  readonly signal?: AbortSignal | CloseSignal | undefined;
  /** Called with each address before it is tried. */
  readonly onAttempt?: (address: ResolvedAddress) => void;
  /** Called with each address that failed. */
  readonly onAttemptFailed?: (address: ResolvedAddress, error: NodeJS.ErrnoException) => void;
}

/**
 * Connects to the first address that accepts the connection.
 *
 * @returns the connected socket, with `allowHalfOpen`, paused and unread. The caller must add an 'error' listener
 * immediately.
 * @throws ConnectError `ERR_SPIPED_CONNECT` if every address failed, `ERR_SPIPED_CONNECT_TIMEOUT` on timeout; or the
 * signal's reason.
 */
export function dial(options: DialOptions): Promise<Socket> {
  const { addresses, timeout, signal } = options;
  return new Promise((resolve, reject) => {
    let socket: Socket | undefined;
    const settle = (outcome: () => void) => {
      cancelTimeout();
      removeAbortListener();
      outcome();
    };
    const fail = (error: unknown) => {
      settle(() => reject(error));
      socket?.destroy();
    };
    const abort = () => fail(signal?.reason);
    const cancelTimeout = startArrivalTimeout(timeout, () =>
      fail(new ConnectError("ERR_SPIPED_CONNECT_TIMEOUT", `no connection within ${timeout / 1000} s`)),
    );
    const removeAbortListener = onAbort(signal, abort);

    const tryAddress = (index: number, cause?: Error) => {
      const address = addresses[index];
      if (address === undefined) {
        const reason = cause === undefined ? "no address" : cause.message;
        fail(new ConnectError("ERR_SPIPED_CONNECT", `could not connect: ${reason}`, { cause }));
        return;
      }
      options.onAttempt?.(address);
      const current = open(address, options.bind);
      socket = current;
      const onError = (error: NodeJS.ErrnoException) => {
        options.onAttemptFailed?.(address, error);
        tryAddress(index + 1, error);
      };
      current.once("error", onError);
      current.once("connect", () => {
        current.off("error", onError);
        settle(() => resolve(current));
      });
    };

    if (signal?.aborted) abort();
    else tryAddress(0);
  });
}

function open(address: ResolvedAddress, bind: ResolvedAddress | undefined): Socket {
  if (address.kind === "unix") return connectDirect({ path: address.path });
  const { host, port, family } = address;
  const local = bind?.kind === "tcp" ? { localAddress: bind.host, localPort: bind.port } : {};
  return connectDirect({ host, port, family, ...local });
}
