/**
 * The life of one connection of a tunnel (Tarsnap's `conn`): from accept through authentication, a slot and the target
 * to its close. Each step is reported as an event.
 */
import type { Socket } from "node:net";
import { CloseSignal } from "../net/close-signal.ts";
import { dial } from "../net/dial.ts";
import { formatEndpoint } from "../net/format-endpoint.ts";
import { ignoreErrors } from "../net/ignore-errors.ts";
import { type ProxiedConnection, proxyHeaderV1, proxyHeaderV2 } from "../net/proxy-protocol.ts";
import { readProxyHeader } from "../net/read-proxy-header.ts";
import { reset } from "../net/reset.ts";
import { startTimeout } from "../net/timers.ts";
import type { Secret } from "../protocol/secret.ts";
import type { Acceptor } from "../tunnel/accept.ts";
import { type CloseReason, closingFor } from "../tunnel/close-reason.ts";
import { ConnectionRecord } from "../tunnel/connection-event.ts";
import type { Limiter } from "../tunnel/connection-limit.ts";
import { closingAfter } from "../tunnel/find-close-reason.ts";
import type { HandshakeQueue } from "../tunnel/handshake-queue.ts";
import { connectAndHandshake } from "../tunnel/open-connection.ts";
import type { PendingConnection } from "../tunnel/pending-handshakes.ts";
import { type PipeOptions, pipe } from "../tunnel/pipe.ts";
import { RejectedError } from "../tunnel/tunnel-error.ts";
import type { Key } from "./keyring.ts";
import { adviceFor } from "./observe/advice.ts";
import type { ServerOptions } from "./server-options.ts";
import type { Target } from "./target.ts";

/** Maximum number of connections queued for a slot, per limit and process; further ones are closed. */
const QUEUE_CAPACITY = 1024;

/** Maximum time a connection that requests a slot during a drain may wait for it, in ms. */
const MAX_GRANT_MS = 1000;

/** What a connection needs of its server. */
export interface ConnectionContext {
  /** The active options, which a reload replaces. */
  readonly options: ServerOptions;
  readonly acceptor: Acceptor;
  readonly handshakes: HandshakeQueue;
  readonly isDraining: boolean;
}

/** The two sockets of a connection and the keys of the encrypted one. */
type SocketPair = Pick<PipeOptions, "plaintext" | "encrypted" | "session">;

/** An accepted connection. Its failure does not affect others. */
export class Connection {
  readonly #socket: Socket;
  readonly #context: ConnectionContext;
  /** The options at the time of accept; a reload does not change them, except for the keys. */
  readonly #options: ServerOptions;
  readonly #record: ConnectionRecord;
  readonly #pending: PendingConnection;
  /** The key of the client, once it is authenticated. */
  #secret: Secret | undefined;
  /** The reason for which this side closed the connection. */
  #ownReason: CloseReason | undefined;
  #isQueued = false;

  /**
   * @param socket - an accepted socket with an 'error' listener, paused and created with `allowHalfOpen`.
   * @param number - of the connection in the log.
   */
  constructor(socket: Socket, number: number, context: ConnectionContext) {
    const { options } = context;
    this.#socket = socket;
    this.#context = context;
    this.#options = options;
    this.#pending = options.admission.accept(socket);
    this.#record = new ConnectionRecord(
      {
        number,
        tunnel: options.name,
        mode: options.mode,
        peer: formatEndpoint(socket.remoteAddress, socket.remotePort, options.source),
        source: this.#pending.source,
      },
      options.observer,
      options.isInternal !== true,
    );
  }

  /** The key of the client; undefined until it is authenticated. */
  get secret(): Secret | undefined {
    return this.#secret;
  }

  /**
   * Serves the connection. Not `async`: that would retain 2 KiB of locals while it is open.
   *
   * @param onClosed - called when both sockets have closed.
   */
  serve(onClosed: () => void): void {
    const notify = () => {
      if (this.#socket.closed) onClosed();
      else this.#socket.on("close", onClosed);
    };
    const succeed = () => {
      this.#record.reportClosed(closingFor("closed"));
      notify();
    };
    const fail = (error: unknown) => {
      this.#socket.destroy();
      this.#reportFailure(error);
      notify();
    };
    this.#record.report("accepted");
    // The pipe's promise is not part of this chain, whose promises would be retained while the connection is open.
    void this.#open()
      .then((sockets) => void this.#pipe(sockets).then(succeed, fail))
      .catch(fail);
  }

  /** Resets the connection, open or not yet open. */
  reset(reason: CloseReason): void {
    this.#ownReason = reason;
    reset(this.#socket);
  }

  /** Closes the connection if it is queued for a slot. */
  leaveQueue(): void {
    if (!this.#isQueued) return;
    this.#ownReason = "shutdown";
    this.#socket.destroy();
  }

  #reportFailure(error: unknown): void {
    if (this.#ownReason !== undefined) {
      this.#record.reportClosed(closingFor(this.#ownReason));
      return;
    }
    const closing = closingAfter(error);
    this.#record.reportClosed(closing, adviceFor(closing.reason, error, this.#options));
  }

  /** Performs all steps before data can flow. */
  async #open(): Promise<SocketPair> {
    const proxied = await checkClient(this.#socket, this.#pending, this.#options);
    if (proxied !== undefined) {
      const { address, port } = proxied.source;
      this.#record.peer = formatEndpoint(address, port);
      this.#record.source = this.#pending.source;
    }
    return this.#options.mode === "encrypt" ? this.#encrypt(proxied) : this.#decrypt(proxied);
  }

  /** `-e`: waits for a slot, connects to the target, performs the handshake. */
  async #encrypt(proxied: ProxiedConnection | undefined): Promise<SocketPair> {
    const plaintext = this.#socket;
    const options = this.#options;
    const record = this.#record;
    this.#pending.admit(1);
    await this.#waitForSlot(options.connectionLimit);
    record.target = options.targets.name;
    record.report("connecting");
    const clientGone = abortOnClose(plaintext);
    const { timeout, bind, openSocket, weak, requireForwardSecrecy, exponents } = options;
    const { encrypted, session } = await this.#context.handshakes.run(timeout, clientGone, () =>
      options.targets.attempt((target) =>
        connectAndHandshake({
          addresses: this.#addressesOf(target),
          timeout,
          bind,
          openSocket,
          signal: clientGone,
          weak,
          requireForwardSecrecy,
          exponents,
          secret: this.#context.options.keyring.singleSecret,
          preamble: this.#proxyHeader(proxied),
          onStep: (step) => {
            if (step === "connected") record.report("connected");
          },
        }),
      ),
    );
    clientGone.stop();
    record.recordHandshake();
    record.report("authenticated");
    return { plaintext, encrypted, session };
  }

  /** `-d`: authenticates the client, waits for a slot, connects to the target, completes the handshake. */
  async #decrypt(proxied: ProxiedConnection | undefined): Promise<SocketPair> {
    const encrypted = this.#socket;
    const options = this.#options;
    const record = this.#record;
    const { handshake, secret } = await this.#context.acceptor.authenticate(encrypted, this.#pending);
    this.#pending.admit(1);
    record.recordHandshake();
    this.#secret = secret;
    const key = this.#useKey(secret);
    record.report("authenticated");
    if (key.connectionLimit !== undefined) await this.#waitForSlot(key.connectionLimit);
    await this.#waitForSlot(options.connectionLimit);
    this.#useKey(secret);

    const targets = key.targets ?? options.targets;
    record.target = targets.name;
    record.report("connecting");
    const clientGone = abortOnClose(encrypted);
    // Connect while the exponentiations are computed. The response is sent only if the connect succeeds: as with
    // Tarsnap's spiped, an unreachable target makes the client's handshake fail.
    const connecting = targets.attempt((target) =>
      dial({
        addresses: this.#addressesOf(target),
        timeout: options.timeout,
        bind: options.bind,
        openSocket: options.openSocket,
        signal: clientGone,
      }),
    );
    connecting.then(
      (plaintext) => {
        ignoreErrors(plaintext);
        // Not EOF: the target would take the empty stream for a complete one.
        if (encrypted.destroyed) reset(plaintext);
      },
      () => {},
    );
    const { send, session } = handshake.respond();
    const plaintext = await connecting.catch((error: unknown) => {
      session.destroy();
      throw error;
    });
    clientGone.stop();
    record.report("connected");
    const header = this.#proxyHeader(proxied);
    if (header !== undefined) plaintext.write(header);
    encrypted.write(send);
    return { plaintext, encrypted, session };
  }

  /**
   * Returns the key of an authenticated client and records its name.
   *
   * @throws RejectedError if the key was removed or has expired.
   */
  #useKey(secret: Secret): Key {
    const key = this.#context.options.keyring.markUsed(secret);
    if (key === undefined) throw rejected("handshake-key-removed");
    this.#record.keyName = key.name;
    this.#record.keyFingerprint = key.fingerprint;
    if (key.expires !== undefined && key.expires <= Date.now()) throw rejected("handshake-key-expired");
    return key;
  }

  #pipe(sockets: SocketPair): Promise<void> {
    const { mode, engine, keepAlive, idleTimeout } = this.#options;
    const target = mode === "encrypt" ? sockets.encrypted : sockets.plaintext;
    this.#record.target = formatEndpoint(target.remoteAddress, target.remotePort);
    this.#record.report("opened");
    return pipe({ ...sockets, engine, keepAlive, idleTimeout, traffic: this.#record.traffic });
  }

  /** Waits for a slot, which is released when the socket closes. */
  #waitForSlot(limit: Limiter): Promise<void> {
    const socket = this.#socket;
    return new Promise((resolve, reject) => {
      if (socket.destroyed) {
        reject(rejected("closed-early"));
        return;
      }
      if (limit.waiting >= QUEUE_CAPACITY) {
        reject(rejected("queue-full"));
        return;
      }
      const onClose = () => {
        this.#isQueued = false;
        stopWaiting();
        reject(rejected("closed-in-queue"));
      };
      socket.once("close", onClose);
      this.#isQueued = true;
      let hasSlot = false;
      const stopWaiting = limit.acquire(() => {
        hasSlot = true;
        this.#isQueued = false;
        socket.off("close", onClose);
        releaseOnClose(socket, limit);
        resolve();
      });
      if (hasSlot) return;
      this.#record.report("waiting");
      // The primary may have to grant the slot, so it is not available immediately.
      if (!this.#context.isDraining) return;
      startTimeout(MAX_GRANT_MS, () => {
        if (!hasSlot) this.leaveQueue();
      });
    });
  }

  /** Returns the addresses of a target, and records that it is tried. */
  #addressesOf(target: Target): Target["addresses"] {
    this.#record.target = target.address.text;
    return target.addresses;
  }

  /** Returns the PROXY protocol header for the target; undefined if none is sent. */
  #proxyHeader(proxied: ProxiedConnection | undefined): Buffer | undefined {
    const { sendProxy } = this.#options;
    if (sendProxy === undefined) return undefined;
    return sendProxy === "v1" ? proxyHeaderV1(proxied) : proxyHeaderV2(proxied, this.#record.keyName);
  }
}

function rejected(reason: CloseReason): RejectedError {
  return new RejectedError("ERR_SPIPED_REFUSED", reason);
}

/**
 * A separate function, so that the listener does not retain the scope of `#waitForSlot()` while the connection is open.
 */
function releaseOnClose(socket: Socket, limit: Limiter): void {
  socket.on("close", () => limit.release());
}

/**
 * Checks that a client's address is allowed, after reading the PROXY protocol header if the peer must send one.
 *
 * @returns the client's connection, as given in the header if there is one; undefined over a UNIX socket, and without a
 * header if the target gets none.
 */
async function checkClient(
  socket: Socket,
  pending: PendingConnection,
  options: ServerOptions,
): Promise<ProxiedConnection | undefined> {
  if (socket.errored !== null) throw socket.errored;
  const { allow, acceptProxy, timeout } = options;
  const check = (address: string | undefined) => {
    if (allow !== undefined && !allow.includes(address)) throw rejected("address-not-allowed");
  };
  if (acceptProxy?.includes(socket.remoteAddress)) {
    const proxied = await readProxyHeader(socket, timeout);
    if (proxied !== undefined) {
      check(proxied.source.address);
      pending.setAddress(proxied.source.address);
      return proxied;
    }
  }
  check(socket.remoteAddress);
  if (options.sendProxy === undefined) return undefined;
  const { remoteAddress, remotePort, localAddress, localPort } = socket;
  if (remoteAddress === undefined || localAddress === undefined) return undefined;
  return {
    source: { address: remoteAddress, port: remotePort ?? 0 },
    destination: { address: localAddress, port: localPort ?? 0 },
  };
}

/** Returns a signal that aborts if the client closes its connection before `stop()` is called. */
function abortOnClose(socket: Socket): CloseSignal {
  return new CloseSignal(socket, () => rejected("client-closed"));
}
