/** Serves the connections of a tunnel (Tarsnap's `dispatch`): counts them, drains them, and applies reloads to them. */
import type { Socket } from "node:net";
import { dial } from "../net/dial.ts";
import { ignoreErrors } from "../net/ignore-errors.ts";
import { callAt, startTimeout } from "../net/timers.ts";
import type { Secret } from "../protocol/secret.ts";
import { Acceptor } from "../tunnel/accept.ts";
import type { CloseReason } from "../tunnel/close-reason.ts";
import { HandshakeQueue } from "../tunnel/handshake-queue.ts";
import { Connection, type ConnectionContext } from "./connection.ts";
import { reuseSecrets } from "./keyring.ts";
import type { ServerOptions } from "./server-options.ts";

/** Time for which a removed key is kept for pending handshakes if they have no timeout, in ms. */
const OLD_KEY_GRACE_MS = 60_000;

/** Serves the connections of one tunnel. A connection that fails does not affect the others. */
export class TunnelServer implements ConnectionContext {
  readonly handshakes = new HandshakeQueue();
  #options: ServerOptions;
  #acceptor: Acceptor;
  /** Connections whose accepted socket is not closed. */
  readonly #connections = new Set<Connection>();
  #stopExpiry = () => {};
  #leavePool = () => {};
  #drained: (() => void) | undefined;
  #lastNumber = 0;

  constructor(options: ServerOptions) {
    this.#options = options;
    this.#acceptor = this.#makeAcceptor();
    this.#joinPool();
    this.#closeExpired();
  }

  get options(): ServerOptions {
    return this.#options;
  }

  /** Authenticates clients with the active options. */
  get acceptor(): Acceptor {
    return this.#acceptor;
  }

  get isDraining(): boolean {
    return this.#drained !== undefined;
  }

  /** Number of accepted connections that are not closed. */
  get connections(): number {
    return this.#connections.size;
  }

  /**
   * Resolves with whether a target of the tunnel is reachable; targets of keys are not checked. Connects only if the
   * last attempt failed.
   */
  isReachable(): Promise<boolean> {
    const options = this.#options;
    return options.targets.probe(async (target) => {
      const socket = await dial({ ...options, addresses: target.addresses });
      ignoreErrors(socket);
      socket.destroy();
    });
  }

  /**
   * Applies new options to later connections. Existing connections keep theirs, except that those of clients whose key
   * was removed are closed.
   */
  reconfigure(options: ServerOptions): void {
    const { keys, removed } = reuseSecrets(options.keyring.keys, this.#options.keyring.keys);
    options.keyring.replace(keys);
    const known = new Set(this.#options.keyring.keys.map(({ secret }) => secret));
    if (keys.some(({ secret }) => !known.has(secret))) options.admission.penalties.clear();
    stopLookups(this.#options);
    this.#options = options;
    this.#acceptor = this.#makeAcceptor();
    this.#joinPool();
    this.#closeClients(new Set(removed), "key-removed");
    this.#closeExpired();
    if (removed.length === 0) return;
    const { timeout } = options;
    startTimeout(timeout === Number.POSITIVE_INFINITY ? OLD_KEY_GRACE_MS : 2 * timeout, () => {
      for (const secret of removed) secret.destroy();
    });
  }

  /** Serves an accepted socket, which must be paused and created with `allowHalfOpen`. */
  accept(socket: Socket): void {
    ignoreErrors(socket);
    this.#lastNumber += 1;
    const connection = new Connection(socket, this.#lastNumber, this);
    this.#connections.add(connection);
    connection.serve(() => {
      this.#connections.delete(connection);
      if (this.#connections.size === 0) this.#drained?.();
    });
  }

  /**
   * Closes the connections queued for a slot and resolves when the others, including those of unauthenticated clients,
   * have closed. `accept()` must not be called afterwards.
   */
  drain(): Promise<void> {
    stopLookups(this.#options);
    for (const connection of this.#connections) connection.leaveQueue();
    return new Promise((resolve) => {
      this.#drained = () => {
        this.#stopExpiry();
        this.#leavePool();
        resolve();
      };
      if (this.#connections.size === 0) this.#drained();
    });
  }

  /** Resets all connections, so that no peer takes what it has received for the whole, and stops all timers. */
  destroy(): void {
    stopLookups(this.#options);
    this.#stopExpiry();
    this.#leavePool();
    for (const connection of this.#connections) connection.reset("daemon-stopped");
  }

  /** Resets the connections, open or not yet open, of clients authenticated with one of these keys. */
  #closeClients(secrets: ReadonlySet<Secret>, reason: CloseReason): void {
    for (const connection of this.#connections) {
      const { secret } = connection;
      if (secret !== undefined && secrets.has(secret)) connection.reset(reason);
    }
  }

  /** Closes the connections of expired keys, now and whenever another key expires. */
  #closeExpired(): void {
    this.#stopExpiry();
    const now = Date.now();
    const expired = new Set<Secret>();
    let next = Number.POSITIVE_INFINITY;
    for (const { secret, expires = Number.POSITIVE_INFINITY } of this.#options.keyring.keys) {
      if (expires <= now) expired.add(secret);
      else next = Math.min(next, expires);
    }
    if (expired.size > 0) this.#closeClients(expired, "key-expired");
    if (next !== Number.POSITIVE_INFINITY) this.#stopExpiry = callAt(next, () => this.#closeExpired());
  }

  /** Uses the pool of exponents, unless handshakes are weak. */
  #joinPool(): void {
    const leave = this.#leavePool;
    this.#leavePool = this.#options.weak ? () => {} : this.#options.exponents.use();
    leave();
  }

  #makeAcceptor(): Acceptor {
    return new Acceptor({ ...this.#options, candidates: () => this.#candidates() });
  }

  /** Reads the current options each time: a reload may replace the keys before a client's proof arrives. */
  *#candidates(): Iterable<Secret> {
    yield* this.#options.keyring.candidates();
  }
}

function stopLookups({ targets, keyring }: ServerOptions): void {
  targets.stop();
  for (const key of keyring.keys) key.targets?.stop();
}
