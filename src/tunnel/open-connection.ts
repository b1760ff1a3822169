/** Opening an encrypted connection: dial, handshake, and a stream. */
import type { Socket } from "node:net";
import { type DialOptions, dial } from "../net/dial.ts";
import { ignoreErrors } from "../net/ignore-errors.ts";
import { onAbort } from "../net/on-abort.ts";
import { arrivalDeadline } from "../net/timers.ts";
import type { Engine } from "../protocol/engine/engine.ts";
import { defaultEngine } from "../protocol/engine/select.ts";
import { ClientHandshake, type HandshakeOptions } from "../protocol/handshake.ts";
import type { SessionKeys } from "../protocol/key-schedule.ts";
import { HandshakeError } from "../protocol/protocol-error.ts";
import type { Secret } from "../protocol/secret.ts";
import { type HandshakeStep, handshakeAsClient } from "./handshake-io.ts";
import { SpipedSocket } from "./spiped-socket.ts";

/** What opening a connection needs. `timeout` holds for the connect and again for the handshake, ms. */
export interface OpenOptions extends DialOptions, HandshakeOptions {
  readonly secret: Secret;
  /** Bytes to send in front of everything else: a PROXY protocol header. */
  readonly preamble?: Uint8Array | undefined;
  /** Called once connected, then with each step of the handshake. */
  readonly onStep?: (step: "connected" | HandshakeStep) => void;
}

/**
 * Connects to a server and handshakes with it.
 *
 * @returns the connected socket, paused, with a listener for errors, and the session keys.
 * @throws what `dial` throws, HandshakeError, or the socket's error.
 */
export async function openWire(options: OpenOptions): Promise<{ wire: Socket; session: SessionKeys }> {
  const wire = await dial(options);
  ignoreErrors(wire);
  const { signal, timeout, onStep } = options;
  if (signal?.aborted) {
    wire.destroy();
    throw signal.reason;
  }
  const handshake = new ClientHandshake(options.secret, options);
  const abort = () => wire.destroy(signal?.reason);
  const cancelDeadline = arrivalDeadline(timeout, () =>
    wire.destroy(
      new HandshakeError("ERR_SPIPED_HANDSHAKE_TIMEOUT", `no handshake within ${timeout / 1000} s`, {
        awaiting: handshake.awaiting,
      }),
    ),
  );
  const stopWatching = onAbort(signal, abort);
  onStep?.("connected");
  if (options.preamble !== undefined) wire.write(options.preamble);
  try {
    const session = await handshakeAsClient(wire, handshake, onStep);
    return { wire, session };
  } catch (error) {
    wire.destroy();
    throw error;
  } finally {
    cancelDeadline();
    stopWatching();
  }
}

/** What `connectAddresses` needs. */
export interface ConnectAddressesOptions extends OpenOptions {
  /** Set SO_KEEPALIVE. */
  readonly keepAlive: boolean;
  readonly engine?: Engine | undefined;
}

/**
 * Opens an encrypted stream to a server.
 *
 * @throws as `openWire`.
 */
export async function connectAddresses(options: ConnectAddressesOptions): Promise<SpipedSocket> {
  const { wire, session } = await openWire(options);
  const socket = new SpipedSocket(wire, session, options.engine ?? defaultEngine());
  return socket.setKeepAlive(options.keepAlive);
}
