/** The library's `createServer()`: encrypted connections as streams, with no daemon in between. */
import { EventEmitter } from "node:events";
import type { Socket } from "node:net";
import { SpipedError } from "../errors.ts";
import { ignoreErrors } from "../net/ignore-errors.ts";
import { Listener } from "../net/listener.ts";
import { callAt } from "../net/timers.ts";
import { defaultEngine } from "../protocol/engine/select.ts";
import type { ServerHandshake } from "../protocol/handshake.ts";
import { Secret } from "../protocol/secret.ts";
import { Acceptor } from "../tunnel/accept.ts";
import { Admission } from "../tunnel/admission.ts";
import { SpipedSocket } from "../tunnel/spiped-socket.ts";
import { checkForwardSecrecy, checkTimeout, DEFAULT_TIMEOUT } from "./connect.ts";

/** A key of a server that has several. */
export interface Key {
  /** The client's name, which several keys may share. */
  readonly name: string;
  readonly secret: Secret;
  /** From when on it is refused, and the connections that it has opened are closed. */
  readonly expires?: Date;
}

/** How to serve. */
export interface ServerOptions {
  /** The shared key; or `keys`. */
  readonly key?: Secret;
  /**
   * Several keys, as `loadKeys()` gives them: `socket.keyName` says whose it was, and `socket.keyFingerprint` which.
   * Read again for each client, so that the array may change while the server runs.
   */
  readonly keys?: readonly Key[];
  /** How long a client may take to prove that it holds the key, ms. 5000 if absent. */
  readonly timeout?: number;
  /** As `spiped -f`. */
  readonly weak?: boolean;
  /** As `spiped -g`. */
  readonly requireForwardSecrecy?: boolean;
  /** TCP keep-alive; on if absent. */
  readonly keepAlive?: boolean;
  /** Whether our side of a connection stays open when its client has half-closed; true if absent. */
  readonly allowHalfOpen?: boolean;
}

/** A client's key was accepted until its last day. */
class KeyExpiredError extends SpipedError {
  constructor({ name }: Key) {
    super("ERR_SPIPED_KEY_EXPIRED", `key ${name} expired`);
  }
}

/** What a server tells. */
export interface SpipedServerEvents {
  /** A client has proved that it holds the key. */
  connection: [socket: SpipedSocket];
  /**
   * A connection was closed before its peer was authenticated: wrong key, timeout, end, eviction or penalty. The peer got
   * at most the server's nonce. Without a listener this is silent.
   */
  refused: [error: Error, peer: { address: string | undefined; port: number | undefined }];
  /** Accepting failed, or connections were closed for lack of file descriptors; the server goes on. */
  warning: [error: Error];
}

/** Accepts encrypted connections from `spiped -e`, `spipe` and `connect()`. */
export class SpipedServer extends EventEmitter<SpipedServerEvents> {
  readonly #options: ServerOptions;
  readonly #listener: Listener;
  readonly #acceptor: Acceptor;
  readonly #admission = new Admission({ onShortage: (error) => this.emit("warning", error) });
  readonly #sockets = new Set<Socket>();
  /** Resolves calls of `close()` when the last connection is closed. */
  readonly #closing = new Set<() => void>();

  /** @internal Made by `createServer()`. */
  constructor(options: ServerOptions) {
    super();
    const { key, keys, timeout = DEFAULT_TIMEOUT } = options;
    if ((key === undefined) === (keys === undefined)) throw new TypeError("either key or keys must be given");
    if (keys !== undefined && !Array.isArray(keys))
      throw new TypeError("keys must be an array, as loadKeys() gives it");
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
   * @param where a TCP port on an IP address (all IPv4 addresses if none is given; port 0 lets the system choose), or
   * the absolute path of a UNIX socket.
   * @throws the system's error, or TypeError; ERR_SPIPED_UNTRUSTED_PATH if root would bind where another user can replace
   * the directory.
   */
  async listen(
    where: { readonly port: number; readonly host?: string } | { readonly path: string },
  ): Promise<void> {
    if (typeof where !== "object" || where === null) {
      throw new TypeError("listen() takes { port }, { port, host } or { path }");
    }
    if ("path" in where) {
      await this.#listener.listen({ kind: "unix", path: where.path });
    } else {
      const { host = "0.0.0.0", port } = where;
      await this.#listener.listen({ kind: "tcp", host, port, family: host.includes(":") ? 6 : 4 });
    }
  }

  /** As `net.Server.address()`. */
  address(): ReturnType<Listener["address"]> {
    return this.#listener.address();
  }

  /** Stops listening; resolves when the last connection is closed. */
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
    this.#acceptor
      .authenticate(socket, pending)
      .then(({ handshake, secret }) => ({ handshake, key: this.#keyOf(secret) }))
      .then(
        ({ handshake, key }) => {
          pending.admit(0);
          this.#welcome(socket, handshake, key);
        },
        (error: Error) => {
          socket.destroy();
          this.emit("refused", error, peer);
        },
      );
  }

  /** @throws SpipedError if the key of a verified client is not accepted now. */
  #keyOf(secret: Secret): Key | undefined {
    const { keys } = this.#options;
    if (keys === undefined) return undefined;
    const key = keys.find((key) => key.secret === secret);
    if (key === undefined) throw new SpipedError("ERR_SPIPED_KEY_REMOVED", "key removed");
    if (key.expires !== undefined && key.expires.getTime() <= Date.now()) throw new KeyExpiredError(key);
    return key;
  }

  #welcome(wire: Socket, handshake: ServerHandshake, key: Key | undefined): void {
    const { send, session } = handshake.respond();
    wire.write(send);
    const socket = new SpipedSocket(wire, session, defaultEngine(), key);
    if (key?.expires !== undefined) {
      const stop = callAt(key.expires.getTime(), () => socket.destroy(new KeyExpiredError(key)));
      socket.once("close", stop);
    }
    socket.setKeepAlive(this.#options.keepAlive ?? true);
    socket.allowHalfOpen = this.#options.allowHalfOpen ?? true;
    this.emit("connection", socket);
  }
}

/**
 * Makes a server for encrypted connections; `listen()` starts it.
 *
 * @param onConnection called with the stream of each client that has proved to hold the key.
 * @throws TypeError when the options make no sense.
 */
export function createServer(
  options: ServerOptions,
  onConnection?: (socket: SpipedSocket) => void,
): SpipedServer {
  const server = new SpipedServer(options);
  if (onConnection !== undefined) server.on("connection", onConnection);
  return server;
}
