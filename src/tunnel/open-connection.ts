/** Opens an encrypted connection: dials, performs the handshake, and creates the stream. */
import type { Socket } from "node:net";
import { type DialOptions, dial } from "../net/dial.ts";
import { ignoreErrors } from "../net/ignore-errors.ts";
import { onAbort } from "../net/on-abort.ts";
import { reset } from "../net/reset.ts";
import { startArrivalTimeout } from "../net/timers.ts";
import type { Engine } from "../protocol/engine/engine.ts";
import { loadEngine } from "../protocol/engine/select.ts";
import { ClientHandshake, type HandshakeOptions } from "../protocol/handshake.ts";
import type { SessionKeys } from "../protocol/key-schedule.ts";
import { HandshakeError } from "../protocol/protocol-error.ts";
import type { Secret } from "../protocol/secret.ts";
import { type HandshakeStep, handshakeAsClient } from "./handshake-io.ts";
import type { Traffic } from "./pipe.ts";
import { SpipedSocket } from "./spiped-socket.ts";

/** Options for opening a connection. `timeout`, in ms, applies separately to the connect and to the handshake. */
export interface ConnectAndHandshakeOptions extends DialOptions, HandshakeOptions {
  readonly secret: Secret;
  /** Bytes to send before the handshake: a PROXY protocol header. */
  readonly preamble?: Uint8Array | undefined;
  /** Called when connected, then after each step of the handshake. */
  readonly onStep?: (step: "connected" | HandshakeStep) => void;
}

/**
 * Connects to a server and performs the handshake.
 *
 * @returns the connected socket, paused and with an 'error' listener, and the session keys.
 * @throws the errors of `dial`, HandshakeError, or the socket's error.
 */
export async function connectAndHandshake(
  options: ConnectAndHandshakeOptions,
): Promise<{ encrypted: Socket; session: SessionKeys }> {
  const encrypted = await dial(options);
  ignoreErrors(encrypted);
  const { signal, timeout, onStep } = options;
  if (signal?.aborted) {
    encrypted.destroy();
    throw signal.reason;
  }
  const handshake = new ClientHandshake(options.secret, options);
  let failure: unknown;
  // The server may have completed its side, and an EOF would end its target's stream as if it were complete.
  const fail = (reason: unknown) => {
    failure = reason;
    reset(encrypted);
  };
  const cancelTimeout = startArrivalTimeout(timeout, () =>
    fail(
      new HandshakeError("ERR_SPIPED_HANDSHAKE_TIMEOUT", `no handshake within ${timeout / 1000} s`, {
        awaiting: handshake.awaiting,
      }),
    ),
  );
  const removeAbortListener = onAbort(signal, () => fail(signal?.reason));
  onStep?.("connected");
  if (options.preamble !== undefined) encrypted.write(options.preamble);
  try {
    const session = await handshakeAsClient(encrypted, handshake, onStep);
    return { encrypted, session };
  } catch (error) {
    reset(encrypted);
    throw failure ?? error;
  } finally {
    cancelTimeout();
    removeAbortListener();
  }
}

/** Options for `connectAddresses`. */
export interface ConnectAddressesOptions extends ConnectAndHandshakeOptions {
  /** Whether to set SO_KEEPALIVE. */
  readonly keepAlive: boolean;
  readonly engine?: Engine | undefined;
  /** Counters that the stream updates. */
  readonly traffic?: Traffic | undefined;
}

/**
 * Opens an encrypted stream to a server.
 *
 * @throws the errors of `connectAndHandshake`.
 */
export async function connectAddresses(options: ConnectAddressesOptions): Promise<SpipedSocket> {
  // Loaded first: nothing listens to the socket while it is awaited.
  const { engine = await loadEngine(), traffic } = options;
  const { encrypted, session } = await connectAndHandshake(options);
  const socket = SpipedSocket.create(encrypted, session, engine, { traffic });
  return socket.setKeepAlive(options.keepAlive);
}
