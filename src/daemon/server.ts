/**
 * The daemon's work (Tarsnap's `dispatch` and `conn`): accept connections, connect each to the target with one side
 * encrypted, limit how many there are, and let them drain.
 */
import type { Socket } from "node:net";
import type { Engine } from "../protocol/engine.ts";
import { defaultEngine } from "../protocol/engines.ts";
import type { Secret } from "../protocol/secret.ts";
import { Acceptor } from "../tunnel/acceptor.ts";
import type { ResolvedAddress } from "../tunnel/address.ts";
import { openWire } from "../tunnel/connect.ts";
import { type DialOptions, dial } from "../tunnel/dial.ts";
import { Listener } from "../tunnel/listener.ts";
import { type PipeOptions, pipe } from "../tunnel/pipe.ts";
import { Slots } from "../tunnel/slots.ts";
import { systemErrorText } from "../tunnel/system-error.ts";
import type { Log } from "./log.ts";
import type { ConnectionInfo, Observer } from "./observer.ts";
import { reasonFor } from "./reason.ts";

/** How many accepted connections may wait for a slot of `-n`, beyond which new ones are closed. */
const QUEUE_CAPACITY = 1024;

/** What a server does. */
export interface ServerOptions {
  /** `encrypt`: plain connections come in, encrypted ones go out (`-e`). `decrypt`: the other way round (`-d`). */
  readonly mode: "encrypt" | "decrypt";
  /** Where connections go. Asked for its addresses anew for each connection. */
  readonly target: { readonly addresses: readonly ResolvedAddress[] };
  readonly secret: Secret;
  /** `Infinity` for no limit. */
  readonly maxConnections: number;
  /** For the connect, and again for the handshake, ms; `Infinity` waits for ever. */
  readonly timeout: number;
  readonly weak: boolean;
  readonly requireForwardSecrecy: boolean;
  readonly keepAlive: boolean;
  /** Local address for connections to the target. */
  readonly bind?: ResolvedAddress | undefined;
  readonly log: Log;
  readonly observer?: Observer;
  readonly engine?: Engine;
}

/** Listens on one address and serves its connections. No failure of a connection ever ends it. */
export class TunnelServer {
  readonly #options: ServerOptions;
  readonly #engine: Engine;
  readonly #listener: Listener;
  readonly #acceptor: Acceptor;
  readonly #slots: Slots;
  /** All accepted sockets that are not closed yet. */
  readonly #sockets = new Set<Socket>();
  /** Sockets accepted before `start()`. */
  #early: Socket[] | undefined = [];
  /** Ends the waiting of those who have no slot. */
  readonly #queue = new Set<() => void>();
  #closed: (() => void) | undefined;
  #count = 0;

  constructor(options: ServerOptions) {
    const { secret, maxConnections, log } = options;
    this.#options = options;
    this.#engine = options.engine ?? defaultEngine();
    this.#acceptor = new Acceptor({ ...options, candidates: () => [secret] });
    this.#slots = new Slots(maxConnections, () =>
      log.warn(`Maximum number of connections (${maxConnections}) reached`),
    );
    this.#listener = new Listener(
      (socket) => this.#accept(socket),
      (error) => log.warn(`Error accepting a connection: ${error.message}`),
    );
  }

  /**
   * Binds and listens. Clients can connect from now on; they are served after `start()`.
   *
   * @throws the system's error.
   */
  listen(address: ResolvedAddress): Promise<void> {
    return this.#listener.listen(address);
  }

  /** Where the server listens. */
  address(): ReturnType<Listener["address"]> {
    return this.#listener.address();
  }

  /** Begins to serve. */
  start(): void {
    const early = this.#early ?? [];
    this.#early = undefined;
    for (const socket of early) void this.#serve(socket);
  }

  /**
   * Drains: stops listening at once, closes who has no slot yet, and lets the others run to their end.
   *
   * @returns a promise that resolves when no connection is left.
   */
  close(): Promise<void> {
    this.#listener.close();
    for (const dismiss of this.#queue) dismiss();
    for (const socket of this.#early ?? []) socket.destroy();
    return new Promise((resolve) => {
      if (this.#sockets.size === 0) resolve();
      else this.#closed = resolve;
    });
  }

  /** Ends everything now. */
  destroy(): void {
    this.#listener.close();
    for (const socket of this.#sockets) socket.destroy();
  }

  #accept(socket: Socket): void {
    // Errors are seen through `socket.errored` and 'close'; unlistened they would end the process.
    socket.on("error", () => {});
    this.#sockets.add(socket);
    socket.once("close", () => {
      this.#sockets.delete(socket);
      if (this.#sockets.size === 0) this.#closed?.();
    });
    if (this.#early !== undefined) this.#early.push(socket);
    else void this.#serve(socket);
  }

  async #serve(socket: Socket): Promise<void> {
    const { mode, observer } = this.#options;
    const connection: ConnectionInfo = {
      id: ++this.#count,
      peer: nameOf(socket.remoteAddress, socket.remotePort),
      acceptedAt: performance.now(),
      state: mode === "encrypt" ? "waiting" : "stranger",
      traffic: { sealed: 0, opened: 0 },
    };
    observer?.accepted?.(connection);
    let reason = "closed";
    try {
      if (mode === "encrypt") await this.#encrypt(socket, connection);
      else await this.#decrypt(socket, connection);
    } catch (error) {
      reason = reasonFor(error);
      socket.destroy();
    }
    connection.state = "closed";
    observer?.closed?.(connection, reason);
  }

  /** `-e`: a slot, the target, the handshake with it, the pipe. */
  async #encrypt(plain: Socket, connection: ConnectionInfo): Promise<void> {
    await this.#slot(plain, connection);
    const gone = abortOnClose(plain);
    const { wire, session } = await openWire({ ...this.#options, ...this.#dialing(gone.signal) });
    gone.stop();
    await this.#pipe({ plain, wire, session }, wire, connection);
  }

  /** `-d`: the client's proof, a slot, the target, our part of the handshake, the pipe. */
  async #decrypt(wire: Socket, connection: ConnectionInfo): Promise<void> {
    const { handshake } = await this.#acceptor.verify(wire);
    await this.#slot(wire, connection);
    const gone = abortOnClose(wire);
    // The connect is under way while the exponentiations are computed. Our message is sent when it has succeeded: so a
    // client learns of a target that refuses from a handshake that fails, as with the original.
    const connecting = dial({ ...this.#options, ...this.#dialing(gone.signal) });
    const { send, session } = handshake.respond();
    const plain = await connecting;
    plain.on("error", () => {});
    gone.stop();
    wire.write(send);
    await this.#pipe({ plain, wire, session }, plain, connection);
  }

  /** Where to connect for a client, who may leave in the meantime. */
  #dialing(signal: AbortSignal): Pick<DialOptions, "addresses" | "signal" | "onAttemptFailed"> {
    const { target, log } = this.#options;
    return {
      addresses: target.addresses,
      signal,
      onAttemptFailed: (_address, error) => {
        if (error.syscall === "bind") log.warn(`Error binding socket: ${systemErrorText(error)}`);
      },
    };
  }

  #pipe(
    ends: Pick<PipeOptions, "plain" | "wire" | "session">,
    target: Socket,
    connection: ConnectionInfo,
  ): Promise<void> {
    connection.state = "open";
    connection.target = nameOf(target.remoteAddress, target.remotePort);
    connection.openedAt = performance.now();
    this.#options.observer?.opened?.(connection);
    const { keepAlive } = this.#options;
    return pipe({ ...ends, engine: this.#engine, keepAlive, traffic: connection.traffic });
  }

  /** Waits for a slot of `-n`, which is given back when the socket closes. */
  #slot(socket: Socket, connection: ConnectionInfo): Promise<void> {
    connection.state = "waiting";
    return new Promise((resolve, reject) => {
      if (socket.destroyed || this.#slots.waiting >= QUEUE_CAPACITY) {
        reject(new Error(socket.destroyed ? "closed" : "too many connections wait for a slot"));
        return;
      }
      const leave = () => {
        this.#queue.delete(dismiss);
        stopWaiting();
        reject(new Error("closed while waiting for a slot"));
      };
      const dismiss = () => socket.destroy();
      socket.once("close", leave);
      this.#queue.add(dismiss);
      const stopWaiting = this.#slots.take(() => {
        this.#queue.delete(dismiss);
        socket.off("close", leave);
        socket.once("close", () => this.#slots.release());
        connection.state = "connecting";
        resolve();
      });
    });
  }
}

/** A signal that fires when a socket closes before `stop` is called. */
function abortOnClose(socket: Socket): { signal: AbortSignal; stop: () => void } {
  const controller = new AbortController();
  const abort = () => controller.abort(new Error("client closed"));
  if (socket.destroyed) abort();
  socket.once("close", abort);
  return { signal: controller.signal, stop: () => socket.off("close", abort) };
}

function nameOf(address: string | undefined, port: number | undefined): string {
  if (address === undefined) return "unix";
  return address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`;
}
