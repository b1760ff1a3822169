/** The library's `createServer()`: accepts encrypted connections as streams, without a daemon. */
import { EventEmitter } from "node:events";
import type { Server, Socket } from "node:net";
import { formatEndpoint } from "../net/format-endpoint.ts";
import { ignoreErrors } from "../net/ignore-errors.ts";
import { Listener } from "../net/listener.ts";
import { callAt } from "../net/timers.ts";
import type { Engine } from "../protocol/engine/engine.ts";
import { loadEngine } from "../protocol/engine/select.ts";
import type { ServerHandshake } from "../protocol/handshake.ts";
import { Secret } from "../protocol/secret.ts";
import { Acceptor } from "../tunnel/accept.ts";
import { Admission } from "../tunnel/admission.ts";
import type { CloseReason } from "../tunnel/close-reason.ts";
import { ConnectionRecord } from "../tunnel/connection-event.ts";
import { closingAfter } from "../tunnel/find-close-reason.ts";
import { SpipedSocket } from "../tunnel/spiped-socket.ts";
import { RejectedError } from "../tunnel/tunnel-error.ts";
import { checkForwardSecrecy, checkTimeout, DEFAULT_TIMEOUT_MS } from "./connect.ts";
import { reportUntilClosed } from "./report-closed.ts";

/** One of several keys of a server. */
export interface Key {
  /** The client's name, which several keys may share. */
  readonly name: string;
  readonly secret: Secret;
  /** Time from which the key is rejected and its open connections are closed. */
  readonly expires?: Date;
}

/** Options of `createServer()`. Exactly one of `key` and `keys` is required. */
export interface ServerOptions {
  /** The shared key. */
  readonly key?: Secret;
  /**
   * Several keys, such as `loadKeys()` returns. `socket.keyName` and `socket.keyFingerprint` identify the key that a
   * client used. The array is read for each client and may be changed while the server runs.
   */
  readonly keys?: readonly Key[];
  /** Maximum time a client may take to authenticate, in ms. Defaults to 5000. */
  readonly timeout?: number;
  /** Skip Diffie-Hellman, as `spiped -f` does. */
  readonly weak?: boolean;
  /** Reject clients that do not offer forward secrecy, as `spiped -g` does. */
  readonly requireForwardSecrecy?: boolean;
  /** TCP keep-alive. Defaults to true. */
  readonly keepAlive?: boolean;
  /** Keep the server's side of a connection open when the client half-closes. Defaults to true. */
  readonly allowHalfOpen?: boolean;
}

/** The client's key has expired. */
class KeyExpiredError extends RejectedError {
  constructor({ name }: Key, reason: CloseReason) {
    super("ERR_SPIPED_KEY_EXPIRED", reason, `key ${name} expired`);
  }
}

/** The address of a client; undefined over a UNIX socket. */
interface Peer {
  readonly address: string | undefined;
  readonly port: number | undefined;
}

/** Events of a `SpipedServer`. */
export interface SpipedServerEvents {
  /** A client was authenticated. */
  connection: [socket: SpipedSocket];
  /**
   * A connection was closed before its handshake was complete: wrong, expired or removed key, timeout, EOF, eviction or
   * penalty. The peer received at most the server's nonce. The event needs no listener.
   */
  refused: [error: Error, peer: Peer];
  /** Accepting failed, or connections were closed for lack of file descriptors. The server continues to accept. */
  warning: [error: Error];
}

/** Accepts encrypted connections from `spiped -e`, `spipe` and `connect()`. Created by `createServer()`. */
export class SpipedServer extends EventEmitter<SpipedServerEvents> {
  readonly #options: ServerOptions;
  readonly #listener: Listener;
  readonly #acceptor: Acceptor;
  readonly #admission = new Admission({ onShortage: (error) => this.emit("warning", error) });
  readonly #sockets = new Set<Socket>();
  /** Resolve functions of pending `close()` calls, called when the last connection is closed. */
  readonly #closing = new Set<() => void>();
  #kind: "tcp" | "unix" = "tcp";
  /** Loaded before listening. */
  #engine: Engine | undefined;
  #lastNumber = 0;

  /** @internal */
  static create(options: ServerOptions): SpipedServer {
    return new SpipedServer(options);
  }

  private constructor(options: ServerOptions) {
    super();
    const { key, keys, timeout = DEFAULT_TIMEOUT_MS } = options;
    if ((key === undefined) === (keys === undefined)) throw new TypeError("either key or keys must be given");
    if (keys !== undefined && !Array.isArray(options.keys))
      throw new TypeError("keys must be an array, as returned by loadKeys()");
    for (const secret of keys?.map(({ secret }) => secret) ?? [key]) {
      if (!Secret.is(secret))
        throw new TypeError("a key must be a Secret, from loadKey() or Secret.fromKeyFile()");
    }
    checkTimeout(timeout);
    checkForwardSecrecy(options);
    this.#options = options;
    this.#acceptor = new Acceptor({
      ...options,
      timeout,
      candidates: () => keys?.map(({ secret }) => secret) ?? [key!],
      admission: this.#admission,
    });
    this.#listener = new Listener(
      (socket) => this.#accept(socket),
      (error) => this.emit("warning", error),
    );
  }

  /**
   * Binds and listens.
   *
   * @param where - a TCP port and IP address (default: all IPv4 addresses; port 0 selects a free port), or the absolute
   * path of a UNIX socket.
   * @throws the system's error, or TypeError; ERR_SPIPED_UNTRUSTED_PATH if root would bind a socket in a directory that
   * another user can replace.
   */
  async listen(
    where: { readonly port: number; readonly host?: string } | { readonly path: string },
  ): Promise<void> {
    if (typeof where !== "object" || where === null) {
      throw new TypeError("listen() takes { port }, { port, host } or { path }");
    }
    this.#engine = await loadEngine();
    if ("path" in where) {
      this.#kind = "unix";
      await this.#listener.listen({ kind: "unix", path: where.path });
    } else {
      this.#kind = "tcp";
      const { host = "0.0.0.0", port } = where;
      await this.#listener.listen({ kind: "tcp", host, port, family: host.includes(":") ? 6 : 4 });
    }
  }

  /** Returns the bound address, as `net.Server.address()` does. */
  address(): ReturnType<Server["address"]> {
    return this.#listener.address();
  }

  /** Stops listening. Resolves when the last connection is closed. */
  async close(): Promise<void> {
    await this.#listener.drain();
    if (this.#sockets.size > 0) await new Promise<void>((resolve) => this.#closing.add(resolve));
  }

  #accept(socket: Socket): void {
    const peer = { address: socket.remoteAddress, port: socket.remotePort };
    ignoreErrors(socket);
    this.#sockets.add(socket);
    socket.once("close", () => {
      this.#sockets.delete(socket);
      if (this.#sockets.size === 0) for (const resolve of this.#closing) resolve();
    });
    const pending = this.#admission.accept(socket);
    const record = this.#startRecord(peer, pending.source);
    this.#acceptor
      .authenticate(socket, pending)
      .then(({ handshake, secret }) => ({ handshake, key: this.#findKey(secret) }))
      .then(
        ({ handshake, key }) => {
          pending.admit(0);
          record.recordHandshake();
          this.#onAuthenticated(socket, handshake, key, record);
        },
        (error: unknown) => {
          socket.destroy();
          record.reportClosed(closingAfter(error));
          this.emit("refused", error as Error, peer);
        },
      );
  }

  /** Returns the record of an accepted connection, and reports the accept. */
  #startRecord({ address, port }: Peer, source: string): ConnectionRecord {
    this.#lastNumber += 1;
    const record = new ConnectionRecord({
      number: this.#lastNumber,
      tunnel: undefined,
      mode: "decrypt",
      peer: formatEndpoint(address, port, this.#kind),
      source,
    });
    record.report("accepted");
    return record;
  }

  /**
   * Returns the key of an authenticated client; undefined with a single key.
   *
   * @throws RejectedError if the key was removed or has expired.
   */
  #findKey(secret: Secret): Key | undefined {
    const { keys } = this.#options;
    if (keys === undefined) return undefined;
    const key = keys.find((key) => key.secret === secret);
    if (key === undefined)
      throw new RejectedError("ERR_SPIPED_KEY_REMOVED", "handshake-key-removed", "key removed");
    if (key.expires !== undefined && key.expires.getTime() <= Date.now())
      throw new KeyExpiredError(key, "handshake-key-expired");
    return key;
  }

  #onAuthenticated(
    encrypted: Socket,
    handshake: ServerHandshake,
    key: Key | undefined,
    record: ConnectionRecord,
  ): void {
    const { send, session } = handshake.respond();
    encrypted.write(send);
    const socket = SpipedSocket.create(encrypted, session, this.#engine!, { key, traffic: record.traffic });
    record.keyName = socket.keyName;
    record.keyFingerprint = socket.keyFingerprint;
    record.report("authenticated");
    reportUntilClosed(socket, record);
    if (key?.expires !== undefined) {
      const stop = callAt(key.expires.getTime(), () =>
        socket.destroy(new KeyExpiredError(key, "key-expired")),
      );
      socket.once("close", stop);
    }
    socket.setKeepAlive(this.#options.keepAlive ?? true);
    socket.allowHalfOpen = this.#options.allowHalfOpen ?? true;
    this.emit("connection", socket);
  }
}

/**
 * Creates a server for encrypted connections. Call `listen()` to start it.
 *
 * @param onConnection - called with the stream of each authenticated client.
 * @throws TypeError if the options are invalid.
 */
export function createServer(
  options: ServerOptions,
  onConnection?: (socket: SpipedSocket) => void,
): SpipedServer {
  const server = SpipedServer.create(options);
  if (onConnection !== undefined) server.on("connection", onConnection);
  return server;
}
