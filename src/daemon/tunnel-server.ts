/**
 * Serves a tunnel (Tarsnap's `dispatch` and `conn`): connects each client to the target with one side encrypted, limits
 * the number of connections, and drains them.
 */
import type { Socket } from "node:net";
import type { ResolvedAddress } from "../net/address.ts";
import type { AddressList } from "../net/cidr-list.ts";
import { type DialOptions, dial } from "../net/dial.ts";
import { ignoreErrors } from "../net/ignore-errors.ts";
import { type ProxiedConnection, proxyHeaderV1, proxyHeaderV2 } from "../net/proxy-protocol.ts";
import { readProxyHeader } from "../net/read-proxy-header.ts";
import { reset } from "../net/reset.ts";
import { callAt, startTimeout } from "../net/timers.ts";
import type { Engine } from "../protocol/engine/engine.ts";
import { defaultEngine } from "../protocol/engine/select.ts";
import type { HandshakeOptions } from "../protocol/handshake.ts";
import type { Secret } from "../protocol/secret.ts";
import { Acceptor } from "../tunnel/accept.ts";
import type { Admission } from "../tunnel/admission.ts";
import type { Limiter } from "../tunnel/connection-limit.ts";
import { HandshakeQueue } from "../tunnel/handshake-queue.ts";
import { connectAndHandshake } from "../tunnel/open-connection.ts";
import type { PendingConnection } from "../tunnel/pending-handshakes.ts";
import { type PipeOptions, pipe } from "../tunnel/pipe.ts";
import { type Key, type Keyring, reuseSecrets } from "./keyring.ts";
import { adviceFor } from "./observe/advice.ts";
import { RejectedError, reasonFor } from "./observe/end-reason.ts";
import type { ConnectionInfo, Observer } from "./observe/events.ts";
import type { Target } from "./target.ts";
import type { Targets } from "./targets.ts";

/** Maximum number of connections queued for a slot, per limit and process; further ones are closed. */
const QUEUE_CAPACITY = 1024;

/** Maximum time a connection that requests a slot during a drain may wait for it, in ms. */
const MAX_GRANT_MS = 1000;

/** Time for which a removed key is kept for pending handshakes if they have no timeout, in ms. */
const OLD_KEY_GRACE_MS = 60_000;

/** Options of a TunnelServer. */
export interface ServerOptions extends HandshakeOptions {
  /** Name used in the log and in metrics; undefined for a tunnel given on the command line. */
  readonly name?: string | undefined;
  /** Kind of the listening socket. */
  readonly source: "tcp" | "unix";
  /** `encrypt`: accepts plaintext connections, opens encrypted ones (`-e`). `decrypt`: the reverse (`-d`). */
  readonly mode: "encrypt" | "decrypt";
  /** Default targets; a key may have its own. */
  readonly targets: Targets;
  readonly keyring: Keyring;
  readonly slots: Limiter;
  /** Timeout for the connect and, separately, for the handshake, in ms; `Infinity` for none. */
  readonly timeout: number;
  /** Maximum time without traffic before a connection is closed, in ms; `Infinity` for no limit. */
  readonly idleTimeout: number;
  readonly keepAlive: boolean;
  /** Local address for connections to the target. */
  readonly bind?: ResolvedAddress | undefined;
  /** Client addresses that may connect; undefined allows all. */
  readonly allow?: AddressList | undefined;
  /** Addresses that must send a PROXY protocol header. */
  readonly acceptProxy?: AddressList | undefined;
  /** Version of the PROXY protocol header to send to the target; undefined for none. */
  readonly sendProxy?: "v1" | "v2" | undefined;
  /** Addresses that are never penalized for failed handshakes. */
  readonly penaltyExempt?: AddressList | undefined;
  readonly admission: Admission;
  readonly observer?: Observer | undefined;
  readonly engine?: Engine;
}

/** The two sockets of a connection and the keys of the encrypted one. */
type SocketPair = Pick<PipeOptions, "plain" | "wire" | "session">;

/** A client whose address is allowed, and the options for its connection. */
interface Client {
  readonly socket: Socket;
  /** Addresses for the PROXY protocol header to the target; undefined over a UNIX socket. */
  readonly proxied: ProxiedConnection | undefined;
  readonly options: ServerOptions;
  readonly connection: ConnectionInfo;
}

/** Serves the connections of one tunnel. A connection that fails does not affect the others. */
export class TunnelServer {
  #options: ServerOptions;
  #acceptor: Acceptor;
  readonly #engine: Engine;
  readonly #handshakes = new HandshakeQueue();
  /** Accepted sockets that are not closed. */
  readonly #sockets = new Set<Socket>();
  /** The key of each authenticated client. */
  readonly #secrets = new WeakMap<Socket, Secret>();
  /** Close reasons of connections closed by this server. */
  readonly #closeReasons = new WeakMap<Socket, string>();
  #stopExpiry = () => {};
  /** Functions that each close a connection queued for a slot. */
  readonly #queue = new Set<() => void>();
  #drained: (() => void) | undefined;
  #lastId = 0;

  constructor(options: ServerOptions) {
    this.#options = options;
    this.#engine = options.engine ?? defaultEngine();
    this.#acceptor = this.#makeAcceptor();
    this.#closeExpired();
  }

  get options(): ServerOptions {
    return this.#options;
  }

  /** Number of accepted connections that are not closed. */
  get connections(): number {
    return this.#sockets.size;
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
    this.#closeClients(new Set(removed), "key removed");
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
    this.#sockets.add(socket);
    socket.on("close", () => {
      this.#sockets.delete(socket);
      if (this.#sockets.size === 0) this.#drained?.();
    });
    void this.#serve(socket);
  }

  /**
   * Closes the connections queued for a slot and resolves when the others, including those of unauthenticated clients,
   * have closed. `accept()` must not be called afterwards.
   */
  drain(): Promise<void> {
    stopLookups(this.#options);
    for (const cancel of this.#queue) cancel();
    return new Promise((resolve) => {
      this.#drained = () => {
        this.#stopExpiry();
        resolve();
      };
      if (this.#sockets.size === 0) this.#drained();
    });
  }

  /** Closes all connections immediately. */
  destroy(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  /** Resets the connections, open or not yet open, of clients authenticated with one of these keys. */
  #closeClients(secrets: ReadonlySet<Secret>, reason: string): void {
    for (const socket of this.#sockets) {
      const secret = this.#secrets.get(socket);
      if (secret === undefined || !secrets.has(secret)) continue;
      this.#closeReasons.set(socket, reason);
      reset(socket);
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
    if (expired.size > 0) this.#closeClients(expired, "key expired");
    if (next !== Number.POSITIVE_INFINITY) this.#stopExpiry = callAt(next, () => this.#closeExpired());
  }

  #makeAcceptor(): Acceptor {
    return new Acceptor({ ...this.#options, candidates: () => this.#candidates() });
  }

  /** Reads the current options each time: a reload may replace the keys before a client's proof arrives. */
  *#candidates(): Iterable<Secret> {
    yield* this.#options.keyring.candidates();
  }

  /**
   * Serves one connection. Not `async`: that would retain 2 KiB of locals for each open connection.
   */
  #serve(socket: Socket): Promise<void> {
    const options = this.#options;
    const pending = options.admission.accept(socket);
    const connection: ConnectionInfo = {
      id: ++this.#lastId,
      tunnel: options.name,
      peer: formatPeer(socket.remoteAddress, socket.remotePort, options.source),
      source: pending.source,
      acceptedAt: performance.now(),
      state: options.mode === "encrypt" ? "waiting" : "stranger",
      traffic: { bytesEncrypted: 0, bytesDecrypted: 0 },
    };
    options.observer?.accepted?.(connection);
    const reportClosed = (reason: string, advice?: string) => {
      connection.state = "closed";
      options.observer?.closed?.(connection, reason, advice);
    };
    return this.#open({ socket, options, connection }, pending)
      .then((sockets) => this.#pipe(sockets, options, connection))
      .then(
        () => reportClosed("closed"),
        (error) => {
          socket.destroy();
          const ownReason = this.#closeReasons.get(socket);
          if (ownReason === undefined) reportClosed(reasonFor(error), adviceFor(error, options));
          else reportClosed(ownReason);
        },
      );
  }

  /** Performs all steps before data can flow. */
  async #open(accepted: Omit<Client, "proxied">, pending: PendingConnection): Promise<SocketPair> {
    const { socket, options, connection } = accepted;
    const client: Client = { ...accepted, proxied: await checkClient(socket, pending, options) };
    if (client.proxied !== undefined) {
      const { address, port } = client.proxied.source;
      connection.peer = formatPeer(address, port);
      connection.source = pending.source;
    }
    return options.mode === "encrypt" ? this.#encrypt(client, pending) : this.#decrypt(client, pending);
  }

  /** `-e`: waits for a slot, connects to the target, performs the handshake. */
  async #encrypt(client: Client, pending: PendingConnection): Promise<SocketPair> {
    const { socket: plain, options, connection } = client;
    pending.admit(1);
    await this.#waitForSlot(client, options.slots);
    connection.target = options.targets.name;
    const clientGone = abortOnClose(plain);
    const { wire, session } = await this.#handshakes.run(options.timeout, clientGone.signal, () =>
      options.targets.attempt((target) =>
        connectAndHandshake({
          ...options,
          ...dialOptions(target, clientGone.signal, client),
          secret: this.#options.keyring.only,
          preamble: proxyHeaderFor(client),
        }),
      ),
    );
    clientGone.stop();
    connection.handshakeTime = performance.now() - connection.acceptedAt;
    return { plain, wire, session };
  }

  /** `-d`: authenticates the client, waits for a slot, connects to the target, completes the handshake. */
  async #decrypt(client: Client, pending: PendingConnection): Promise<SocketPair> {
    const { socket: wire, options, connection } = client;
    const { handshake, secret } = await this.#acceptor.authenticate(wire, pending);
    pending.admit(1);
    connection.handshakeTime = performance.now() - connection.acceptedAt;
    this.#secrets.set(wire, secret);
    const key = this.#keyOf(secret, connection);
    if (key.slots !== undefined) await this.#waitForSlot(client, key.slots);
    await this.#waitForSlot(client, options.slots);
    this.#keyOf(secret, connection);

    const clientGone = abortOnClose(wire);
    // Connect while the exponentiations are computed. The response is sent only if the connect succeeds: as with
    // Tarsnap's spiped, an unreachable target makes the client's handshake fail.
    const connecting = (key.targets ?? options.targets).attempt((target) =>
      dial({ ...options, ...dialOptions(target, clientGone.signal, client) }),
    );
    connecting.then(
      (plain) => {
        ignoreErrors(plain);
        if (wire.destroyed) plain.destroy();
      },
      () => {},
    );
    const { send, session } = handshake.respond();
    const plain = await connecting.catch((error) => {
      session.destroy();
      throw error;
    });
    clientGone.stop();
    const header = proxyHeaderFor(client);
    if (header !== undefined) plain.write(header);
    wire.write(send);
    return { plain, wire, session };
  }

  /**
   * Returns the key of an authenticated client and records its name.
   *
   * @throws RejectedError if the key was removed or has expired.
   */
  #keyOf(secret: Secret, connection: ConnectionInfo): Key {
    const key = this.#options.keyring.use(secret);
    if (key === undefined) throw new RejectedError("handshake: key removed");
    connection.keyName = key.name;
    connection.keyFingerprint = key.fingerprint;
    if (key.expires !== undefined && key.expires <= Date.now())
      throw new RejectedError("handshake: key expired");
    return key;
  }

  #pipe(sockets: SocketPair, options: ServerOptions, connection: ConnectionInfo): Promise<void> {
    const target = options.mode === "encrypt" ? sockets.wire : sockets.plain;
    connection.state = "open";
    connection.target = formatPeer(target.remoteAddress, target.remotePort);
    connection.openedAt = performance.now();
    options.observer?.opened?.(connection);
    const { keepAlive, idleTimeout } = options;
    return pipe({ ...sockets, engine: this.#engine, keepAlive, idleTimeout, traffic: connection.traffic });
  }

  /** Waits for a slot, which is released when the socket closes. */
  #waitForSlot({ socket, connection }: Client, slots: Limiter): Promise<void> {
    connection.state = "waiting";
    return new Promise((resolve, reject) => {
      if (socket.destroyed) {
        reject(new RejectedError("closed"));
        return;
      }
      if (slots.waiting >= QUEUE_CAPACITY) {
        reject(new RejectedError("connection queue full"));
        return;
      }
      const onClose = () => {
        this.#queue.delete(cancel);
        stopWaiting();
        reject(new RejectedError("closed while waiting for a slot"));
      };
      const cancel = () => {
        this.#closeReasons.set(socket, "closed while waiting for a slot");
        socket.destroy();
      };
      socket.once("close", onClose);
      this.#queue.add(cancel);
      let hasSlot = false;
      const stopWaiting = slots.acquire(() => {
        hasSlot = true;
        this.#queue.delete(cancel);
        socket.off("close", onClose);
        releaseOnClose(socket, slots);
        connection.state = "connecting";
        resolve();
      });
      if (this.#drained === undefined) return;
      // The primary may have to grant the slot, so it is not available immediately.
      startTimeout(MAX_GRANT_MS, () => {
        if (!hasSlot) cancel();
      });
    });
  }
}

function stopLookups({ targets, keyring }: ServerOptions): void {
  targets.stop();
  for (const key of keyring.keys) key.targets?.stop();
}

/**
 * A separate function, so that the listener does not retain the scope of `#waitForSlot()` while the connection is open.
 */
function releaseOnClose(socket: Socket, slots: Limiter): void {
  socket.on("close", () => slots.release());
}

/**
 * Checks that a client's address is allowed, after reading the PROXY protocol header if the peer must send one.
 *
 * @returns the client's connection, as given in the header if there is one; undefined over a UNIX socket.
 */
async function checkClient(
  socket: Socket,
  pending: PendingConnection,
  options: ServerOptions,
): Promise<ProxiedConnection | undefined> {
  if (socket.errored !== null) throw socket.errored;
  const { allow, acceptProxy, timeout } = options;
  const check = (address: string | undefined) => {
    if (allow !== undefined && !allow.includes(address)) throw new RejectedError("address not allowed");
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
  const { remoteAddress, remotePort, localAddress, localPort } = socket;
  if (remoteAddress === undefined || localAddress === undefined) return undefined;
  return {
    source: { address: remoteAddress, port: remotePort ?? 0 },
    destination: { address: localAddress, port: localPort ?? 0 },
  };
}

/** Returns the PROXY protocol header for the target; undefined if none is sent. */
function proxyHeaderFor({ options, proxied, connection }: Client): Buffer | undefined {
  if (options.sendProxy === undefined) return undefined;
  return options.sendProxy === "v1" ? proxyHeaderV1(proxied) : proxyHeaderV2(proxied, connection.keyName);
}

/** Returns the options for connecting a client to a target; `signal` aborts if the client closes its connection. */
function dialOptions(
  target: Target,
  signal: AbortSignal,
  { connection }: Client,
): Pick<DialOptions, "addresses" | "signal"> {
  connection.target = target.address.text;
  return { addresses: target.addresses, signal };
}

/** Returns a signal that aborts if the socket closes before `stop()` is called. */
function abortOnClose(socket: Socket): { signal: AbortSignal; stop: () => void } {
  const controller = new AbortController();
  const abort = () => controller.abort(new RejectedError("client closed"));
  if (socket.destroyed) abort();
  socket.once("close", abort);
  return { signal: controller.signal, stop: () => socket.off("close", abort) };
}

/** @param kind of the socket; over TCP, the address is unknown once the peer has reset the connection. */
function formatPeer(
  address: string | undefined,
  port: number | undefined,
  kind: "tcp" | "unix" = "unix",
): string {
  if (address === undefined) return kind === "unix" ? "unix" : "unknown";
  return address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`;
}
