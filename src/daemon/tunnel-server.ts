/**
 * A tunnel's work (Tarsnap's `dispatch` and `conn`): connect each client to the target with one side encrypted, limit
 * how many there are, and let them drain.
 */
import type { Socket } from "node:net";
import type { ResolvedAddress } from "../net/address.ts";
import type { AddressList } from "../net/cidr-list.ts";
import { type DialOptions, dial } from "../net/dial.ts";
import { ignoreErrors } from "../net/ignore-errors.ts";
import { type ProxiedConnection, proxyHeaderV1, proxyHeaderV2 } from "../net/proxy-protocol.ts";
import { readProxyHeader } from "../net/read-proxy-header.ts";
import { reset } from "../net/reset.ts";
import { callAt, deadline } from "../net/timers.ts";
import type { Engine } from "../protocol/engine/engine.ts";
import { defaultEngine } from "../protocol/engine/select.ts";
import type { HandshakeOptions } from "../protocol/handshake.ts";
import type { Secret } from "../protocol/secret.ts";
import { Acceptor } from "../tunnel/accept.ts";
import type { Admission } from "../tunnel/admission.ts";
import { HandshakeQueue } from "../tunnel/handshake-queue.ts";
import { openWire } from "../tunnel/open-connection.ts";
import type { PendingConnection } from "../tunnel/pending-handshakes.ts";
import { type PipeOptions, pipe } from "../tunnel/pipe.ts";
import type { SlotCounter } from "../tunnel/slots.ts";
import { carryOver, type Key, type Keyring } from "./keyring.ts";
import { adviceFor } from "./observe/advice.ts";
import { RefusedError, reasonFor } from "./observe/end-reason.ts";
import type { ConnectionInfo, Observer } from "./observe/events.ts";
import type { Log } from "./observe/log.ts";
import type { Target } from "./target.ts";
import type { Targets } from "./targets.ts";

/** How many accepted connections may wait for a slot of `-n`, beyond which new ones are closed. */
const QUEUE_CAPACITY = 1024;

/** How long a client who comes during a drain may wait for a free slot, ms. */
const MAX_GRANT_MS = 1000;

/** How long a key that was removed is kept for the handshakes that are under way, ms, if they have no time limit. */
const RETIREMENT = 60_000;

/** What a tunnel does. */
export interface ServerOptions extends HandshakeOptions {
  /** Its name in the log and in metrics; absent if it is the only one. */
  readonly name?: string | undefined;
  /** What it accepts connections on. */
  readonly source: "tcp" | "unix";
  /** `encrypt`: plain connections come in, encrypted ones go out (`-e`). `decrypt`: the other way round (`-d`). */
  readonly mode: "encrypt" | "decrypt";
  /** Where connections go, unless a key says otherwise. */
  readonly targets: Targets;
  readonly keyring: Keyring;
  readonly slots: SlotCounter;
  /** For the connect, and again for the handshake, ms; `Infinity` waits for ever. */
  readonly timeout: number;
  /** How long a connection may be without traffic, ms; `Infinity` for ever. */
  readonly idleTimeout: number;
  readonly keepAlive: boolean;
  /** Local address for connections to the target. */
  readonly bind?: ResolvedAddress | undefined;
  /** Who may connect; everybody if absent. */
  readonly allow?: AddressList | undefined;
  /** Whose connections begin with a PROXY protocol header. */
  readonly acceptProxy?: AddressList | undefined;
  /** Version of the PROXY protocol header that the target gets. */
  readonly sendProxy?: "v1" | "v2" | undefined;
  /** Addresses that are never penalized for failed handshakes. */
  readonly penaltyExempt?: AddressList | undefined;
  readonly admission: Admission;
  readonly log: Log;
  readonly observer?: Observer | undefined;
  readonly engine?: Engine;
}

/** The two sockets of a connection and the keys between them. */
type Ends = Pick<PipeOptions, "plain" | "wire" | "session">;

/** A client that has been let in, and what holds for it. */
interface Client {
  readonly socket: Socket;
  /** Its connection, as it is told to the target. */
  readonly proxied: ProxiedConnection | undefined;
  readonly options: ServerOptions;
  readonly connection: ConnectionInfo;
}

/** Serves the connections of one tunnel. No failure of a connection ever ends it. */
export class TunnelServer {
  #options: ServerOptions;
  #acceptor: Acceptor;
  readonly #engine: Engine;
  readonly #handshakes = new HandshakeQueue();
  /** All accepted sockets that are not closed yet. */
  readonly #sockets = new Set<Socket>();
  /** The keys that clients have proved to hold. */
  readonly #secrets = new WeakMap<Socket, Secret>();
  /** Why we have ended connections that their peers did not end. */
  readonly #endReasons = new WeakMap<Socket, string>();
  #stopExpiry = () => {};
  /** Ends the waiting of those who have no slot. */
  readonly #queue = new Set<() => void>();
  #drained: (() => void) | undefined;
  #count = 0;

  constructor(options: ServerOptions) {
    this.#options = options;
    this.#engine = options.engine ?? defaultEngine();
    this.#acceptor = this.#makeAcceptor();
    this.#endExpired();
  }

  get options(): ServerOptions {
    return this.#options;
  }

  /** How many accepted connections are not closed yet. */
  get connections(): number {
    return this.#sockets.size;
  }

  /** True if the target could be reached when it was last tried; one that could not is tried now. */
  reachable(): Promise<boolean> {
    const options = this.#options;
    return options.targets.probe(async (target) => {
      const socket = await dial({ ...options, addresses: target.addresses });
      ignoreErrors(socket);
      socket.destroy();
    });
  }

  /**
   * Changes what holds for connections to come; those that are open stay as they are, but for clients whose key is
   * accepted no more: they are closed.
   */
  reconfigure(options: ServerOptions): void {
    const { keys, retired } = carryOver(options.keyring.keys, this.#options.keyring.keys);
    options.keyring.replace(keys);
    const known = new Set(this.#options.keyring.keys.map(({ secret }) => secret));
    if (keys.some(({ secret }) => !known.has(secret))) options.admission.penalties.forgive();
    stopLookUps(this.#options);
    this.#options = options;
    this.#acceptor = this.#makeAcceptor();
    this.#endClients(new Set(retired), "key removed");
    this.#endExpired();
    if (retired.length === 0) return;
    const { timeout } = options;
    deadline(timeout === Number.POSITIVE_INFINITY ? RETIREMENT : 2 * timeout, () => {
      for (const secret of retired) secret.destroy();
    });
  }

  /** Serves an accepted socket, which must be half-open capable and paused. */
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
   * Drains: closes who has no slot yet, and lets the others run to their end. No socket may be accepted from now on.
   *
   * @returns a promise that resolves when no connection is left.
   */
  drain(): Promise<void> {
    stopLookUps(this.#options);
    for (const dismiss of this.#queue) dismiss();
    return new Promise((resolve) => {
      this.#drained = () => {
        this.#stopExpiry();
        resolve();
      };
      if (this.#sockets.size === 0) this.#drained();
    });
  }

  /** Ends all connections now. */
  destroy(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  /** Ends the connections, open or not yet, of clients that have proved to hold one of these keys. */
  #endClients(secrets: ReadonlySet<Secret>, reason: string): void {
    for (const socket of this.#sockets) {
      const secret = this.#secrets.get(socket);
      if (secret === undefined || !secrets.has(secret)) continue;
      this.#endReasons.set(socket, reason);
      reset(socket);
    }
  }

  /** Ends the connections of keys that have expired, and does so again when the next one expires. */
  #endExpired(): void {
    this.#stopExpiry();
    const now = Date.now();
    const expired = new Set<Secret>();
    let next = Number.POSITIVE_INFINITY;
    for (const { secret, expires = Number.POSITIVE_INFINITY } of this.#options.keyring.keys) {
      if (expires <= now) expired.add(secret);
      else next = Math.min(next, expires);
    }
    if (expired.size > 0) this.#endClients(expired, "key expired");
    if (next !== Number.POSITIVE_INFINITY) this.#stopExpiry = callAt(next, () => this.#endExpired());
  }

  #makeAcceptor(): Acceptor {
    return new Acceptor({ ...this.#options, candidates: () => this.#candidates() });
  }

  /** The keys are asked for when a client's proof has come, which may be after they were changed. */
  *#candidates(): Iterable<Secret> {
    yield* this.#options.keyring.candidates();
  }

  /**
   * Nothing that only the way to an open connection needs is held while it is open: an `async` function would keep all
   * its variables until its end, 2 KiB of them.
   */
  #serve(socket: Socket): Promise<void> {
    const options = this.#options;
    const pending = options.admission.accept(socket);
    const connection: ConnectionInfo = {
      id: ++this.#count,
      tunnel: options.name,
      peer: nameOf(socket.remoteAddress, socket.remotePort, options.source),
      source: pending.source,
      acceptedAt: performance.now(),
      state: options.mode === "encrypt" ? "waiting" : "stranger",
      traffic: { sealed: 0, opened: 0 },
    };
    options.observer?.accepted?.(connection);
    const ended = (reason: string, advice?: string) => {
      connection.state = "closed";
      options.observer?.closed?.(connection, reason, advice);
    };
    return this.#open({ socket, options, connection }, pending)
      .then((ends) => this.#pipe(ends, options, connection))
      .then(
        () => ended("closed"),
        (error) => {
          socket.destroy();
          const ours = this.#endReasons.get(socket);
          if (ours === undefined) ended(reasonFor(error), adviceFor(error, options));
          else ended(ours);
        },
      );
  }

  /** All that comes before data can flow. */
  async #open(accepted: Omit<Client, "proxied">, pending: PendingConnection): Promise<Ends> {
    const { socket, options, connection } = accepted;
    const client: Client = { ...accepted, proxied: await letIn(socket, pending, options) };
    if (client.proxied !== undefined) {
      const { address, port } = client.proxied.source;
      connection.peer = nameOf(address, port);
      connection.source = pending.source;
    }
    return options.mode === "encrypt" ? this.#encrypt(client, pending) : this.#decrypt(client, pending);
  }

  /** `-e`: a slot, the target, the handshake with it. */
  async #encrypt(client: Client, pending: PendingConnection): Promise<Ends> {
    const { socket: plain, options, connection } = client;
    pending.admit(1);
    await this.#slot(client, options.slots);
    connection.target = options.targets.name;
    const gone = abortOnClose(plain);
    const { wire, session } = await this.#handshakes.run(options.timeout, gone.signal, () =>
      options.targets.attempt((target) =>
        openWire({
          ...options,
          ...dialing(target, gone.signal, client),
          secret: this.#options.keyring.only,
          preamble: headerFor(client),
        }),
      ),
    );
    gone.stop();
    connection.handshakeTime = performance.now() - connection.acceptedAt;
    return { plain, wire, session };
  }

  /** `-d`: the client's proof, a slot, the target, our part of the handshake. */
  async #decrypt(client: Client, pending: PendingConnection): Promise<Ends> {
    const { socket: wire, options, connection } = client;
    const { handshake, secret } = await this.#acceptor.authenticate(wire, pending);
    pending.admit(1);
    connection.handshakeTime = performance.now() - connection.acceptedAt;
    this.#secrets.set(wire, secret);
    const key = this.#keyOf(secret, connection);
    if (key.slots !== undefined) await this.#slot(client, key.slots);
    await this.#slot(client, options.slots);
    this.#keyOf(secret, connection);

    const gone = abortOnClose(wire);
    // The connect is under way while the exponentiations are computed. Our message is sent when it has succeeded: so a
    // client learns of a target that refuses from a handshake that fails, as with the original.
    const connecting = (key.targets ?? options.targets).attempt((target) =>
      dial({ ...options, ...dialing(target, gone.signal, client) }),
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
    gone.stop();
    const header = headerFor(client);
    if (header !== undefined) plain.write(header);
    wire.write(send);
    return { plain, wire, session };
  }

  /**
   * The key of a verified client.
   *
   * @throws RefusedError if it is not accepted now.
   */
  #keyOf(secret: Secret, connection: ConnectionInfo): Key {
    const key = this.#options.keyring.use(secret);
    if (key === undefined) throw new RefusedError("handshake: key removed");
    connection.keyName = key.name;
    connection.keyFingerprint = key.fingerprint;
    if (key.expires !== undefined && key.expires <= Date.now())
      throw new RefusedError("handshake: key expired");
    return key;
  }

  #pipe(ends: Ends, options: ServerOptions, connection: ConnectionInfo): Promise<void> {
    const target = options.mode === "encrypt" ? ends.wire : ends.plain;
    connection.state = "open";
    connection.target = nameOf(target.remoteAddress, target.remotePort);
    connection.openedAt = performance.now();
    options.observer?.opened?.(connection);
    const { keepAlive, idleTimeout } = options;
    return pipe({ ...ends, engine: this.#engine, keepAlive, idleTimeout, traffic: connection.traffic });
  }

  /** Waits for a slot, which is given back when the socket closes. */
  #slot({ socket, connection }: Client, slots: SlotCounter): Promise<void> {
    connection.state = "waiting";
    return new Promise((resolve, reject) => {
      if (socket.destroyed) {
        reject(new RefusedError("closed"));
        return;
      }
      if (slots.waiting >= QUEUE_CAPACITY) {
        reject(new RefusedError("too many connections wait for a slot"));
        return;
      }
      const leave = () => {
        this.#queue.delete(dismiss);
        stopWaiting();
        reject(new RefusedError("closed while waiting for a slot"));
      };
      const dismiss = () => {
        this.#endReasons.set(socket, "closed while waiting for a slot");
        socket.destroy();
      };
      socket.once("close", leave);
      this.#queue.add(dismiss);
      let hasSlot = false;
      const stopWaiting = slots.take(() => {
        hasSlot = true;
        this.#queue.delete(dismiss);
        socket.off("close", leave);
        releaseOnClose(socket, slots);
        connection.state = "connecting";
        resolve();
      });
      if (this.#drained === undefined) return;
      // The grant may come from another process.
      deadline(MAX_GRANT_MS, () => {
        if (!hasSlot) dismiss();
      });
    });
  }
}

function stopLookUps({ targets, keyring }: ServerOptions): void {
  targets.stop();
  for (const key of keyring.keys) key.targets?.stop();
}

/** By itself, so that an open connection does not hold what its waiting for the slot took. */
function releaseOnClose(socket: Socket, slots: SlotCounter): void {
  socket.on("close", () => slots.release());
}

/**
 * Checks that a client may connect, and reads its PROXY protocol header if it is one who sends it.
 *
 * @returns the connection that the client stands for, undefined over a UNIX socket.
 */
async function letIn(
  socket: Socket,
  pending: PendingConnection,
  options: ServerOptions,
): Promise<ProxiedConnection | undefined> {
  if (socket.errored !== null) throw socket.errored;
  const { allow, acceptProxy, timeout } = options;
  const check = (address: string | undefined) => {
    if (allow !== undefined && !allow.includes(address)) throw new RefusedError("address not allowed");
  };
  if (acceptProxy?.includes(socket.remoteAddress)) {
    const proxied = await readProxyHeader(socket, timeout);
    if (proxied !== undefined) {
      check(proxied.source.address);
      pending.locate(proxied.source.address);
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

/** The PROXY protocol header for the target, if it gets one. */
function headerFor({ options, proxied, connection }: Client): Buffer | undefined {
  if (options.sendProxy === undefined) return undefined;
  return options.sendProxy === "v1" ? proxyHeaderV1(proxied) : proxyHeaderV2(proxied, connection.keyName);
}

/** Where to connect for a client, who may leave in the meantime. */
function dialing(
  target: Target,
  signal: AbortSignal,
  { connection }: Client,
): Pick<DialOptions, "addresses" | "signal"> {
  connection.target = target.address.text;
  return { addresses: target.addresses, signal };
}

/** A signal that fires when a socket closes before `stop` is called. */
function abortOnClose(socket: Socket): { signal: AbortSignal; stop: () => void } {
  const controller = new AbortController();
  const abort = () => controller.abort(new RefusedError("client closed"));
  if (socket.destroyed) abort();
  socket.once("close", abort);
  return { signal: controller.signal, stop: () => socket.off("close", abort) };
}

/** @param kind of socket: one over TCP has no address any more when its peer has reset it. */
function nameOf(
  address: string | undefined,
  port: number | undefined,
  kind: "tcp" | "unix" = "unix",
): string {
  if (address === undefined) return kind === "unix" ? "unix" : "a client that is gone";
  return address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`;
}
