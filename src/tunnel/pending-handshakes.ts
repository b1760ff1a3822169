/**
 * Accepted connections whose client is not authenticated. They use no slot of `-n`, but their number is limited from
 * the moment of accept, for all tunnels of the process together and across reloads.
 *
 * If there are too many, stalled connections are closed. A client with the key sends its nonce immediately and its
 * proof one round trip later; an attacker's connections stall at some point, most before the first byte. There are two
 * limits. Above the lower one, only connections without progress for some time are closed, so a burst of honest clients
 * may exceed it. At the upper one, each new connection evicts another, from a source that has many.
 */
import type { Socket } from "node:net";
import { sourceOf } from "../net/client-source.ts";
import type { DescriptorBudget } from "../net/descriptors.ts";
import { RejectedError } from "./tunnel-error.ts";

/** Lower limit, divided by the number of processes that share it. */
export const MAX_PENDING = 1024;
/** Upper limit, divided likewise: the length of Linux's accept queue, which libuv empties in one pass. */
export const MAX_PENDING_BURST = 4096;
/** Progress of a client: `started` once its nonce has arrived. */
type Stage = "silent" | "started";
/**
 * Time without progress after which a connection may be closed above the lower limit, in ms. A client sends its nonce
 * immediately, but then computes its proof, and many clients on one host share its CPU.
 */
const STALL_MS: Readonly<Record<Stage, number>> = { silent: 500, started: 3000 };
/** Interval of closing stalled connections above the lower limit, in ms. */
const TRIM_INTERVAL_MS = 100;
/** Number of longest-stalled connections per stage among which to find the source with the most connections. */
const EVICTION_CANDIDATES = 32;

/** An accepted connection that is pending until it is admitted. */
export interface PendingConnection {
  /** The client's address; undefined for a UNIX socket. */
  readonly address: string | undefined;
  /** The client's source, by which limits and penalties count. */
  readonly source: string;
  /** Records that the client's nonce or proof has arrived. */
  recordProgress(): void;
  /** Sets the client's address, as received from a load balancer, and counts this as progress. */
  setAddress(address: string): void;
  /**
   * Removes the connection from the pending ones: its client is authenticated, or does not need to be.
   *
   * @param descriptors - number of additional descriptors that the connection will need.
   * @throws RejectedError `ERR_SPIPED_DESCRIPTORS` if too few are available; the socket is then destroyed.
   */
  admit(descriptors: number): void;
}

/** Limits on the number of pending connections. */
export interface PendingLimits {
  readonly lower: number;
  readonly upper: number;
}

/** The pending connections of a process. */
export class PendingHandshakes {
  readonly #limits: PendingLimits;
  readonly #budget: DescriptorBudget;
  /** Pending connections by stage, the longest without progress first. */
  readonly #pending = { silent: new Set<Connection>(), started: new Set<Connection>() };
  readonly #perSource = new Map<string, number>();
  /** True if the descriptor limit determines the upper limit. */
  readonly #limitedByDescriptors: boolean;
  /** Counts event-loop iterations, until the second one after an insertion. */
  #iteration = 0;
  #lastInsertion = 0;
  #counting = false;
  #trimming = false;

  constructor(limits: PendingLimits, budget: DescriptorBudget) {
    const share = Math.floor(budget.usable / 2);
    this.#limitedByDescriptors = share < limits.upper;
    this.#limits = { lower: Math.min(limits.lower, share), upper: Math.min(limits.upper, share) };
    this.#budget = budget;
  }

  /**
   * Adds a pending connection and evicts another one if there are too many. If none can be evicted, or no descriptor is
   * available, the new socket is destroyed with an error before this returns.
   */
  add(socket: Socket): PendingConnection {
    const connection = new Connection(socket, this);
    const { lower, upper } = this.#limits;
    const withinLimits = this.#size < lower || this.#evictStalled() || this.#size < upper || this.#evictOne();
    if (!withinLimits || !this.reserve(1)) {
      if (this.#limitedByDescriptors) this.#budget.reportShortage();
      socket.destroy(withinLimits ? outOfDescriptors() : tooManyPending());
      return connection;
    }
    connection.held = 1;
    // Not `once()`, whose objects take three times as much memory for as long as the connection is open.
    socket.on("close", () => this.release(connection));
    this.insert(connection);
    if (this.#size > lower) this.#trimLater();
    return connection;
  }

  get #size(): number {
    return this.#pending.silent.size + this.#pending.started.size;
  }

  /** Reserves descriptors, evicting pending connections if too few are free. Returns false if that is not enough. */
  reserve(count: number): boolean {
    while (!this.#budget.has(count)) {
      this.#budget.reportShortage();
      if (!this.#evictOne()) return false;
    }
    this.#budget.take(count);
    return true;
  }

  /** Removes a connection and releases its descriptors. */
  release(connection: Connection): void {
    this.remove(connection);
    this.#budget.release(connection.held);
    connection.held = 0;
  }

  insert(connection: Connection): void {
    connection.iteration = this.#iteration;
    connection.progressAt = performance.now();
    this.#pending[connection.stage].add(connection);
    this.#perSource.set(connection.source, (this.#perSource.get(connection.source) ?? 0) + 1);
    this.#lastInsertion = this.#iteration;
    if (!this.#counting) this.#countIterations();
  }

  #countIterations(): void {
    this.#counting = !this.#hadIteration(this.#lastInsertion);
    if (!this.#counting) return;
    setImmediate(() => {
      this.#iteration += 1;
      this.#countIterations();
    }).unref();
  }

  /** Returns true if a full event-loop iteration has passed since `start`, so data that arrived before was read. */
  #hadIteration(start: number): boolean {
    return this.#iteration - start >= 2;
  }

  /** Removes a connection from the pending ones. Returns false if it was not pending. */
  remove(connection: Connection): boolean {
    if (!this.#pending[connection.stage].delete(connection)) return false;
    const left = this.#perSource.get(connection.source)! - 1;
    if (left === 0) this.#perSource.delete(connection.source);
    else this.#perSource.set(connection.source, left);
    return true;
  }

  /** Evicts a connection that has stalled for at least its limit. Returns false if there is none. */
  #evictStalled(): boolean {
    const [silent] = this.#pending.silent;
    const [started] = this.#pending.started;
    const oldest = moreStalled(silent, started);
    if (oldest === undefined || stallRatio(oldest) < 1) return false;
    this.#evict(oldest);
    return true;
  }

  /**
   * Evicts a connection, unless none has had a chance to make progress. Stall times are relative to the limit of the
   * stage, so that a new client is not evicted in favor of clients that stopped in the middle of a handshake.
   */
  #evictOne(): boolean {
    const chosen = moreStalled(this.#evictionCandidate("silent"), this.#evictionCandidate("started"));
    if (chosen === undefined) return false;
    this.#evict(chosen);
    if (this.#limitedByDescriptors) this.#budget.reportShortage();
    return true;
  }

  /** Returns, among the longest-stalled connections of a stage, one from the source with the most connections. */
  #evictionCandidate(stage: Stage): Connection | undefined {
    let chosen: Connection | undefined;
    let most = 0;
    let examined = 0;
    for (const connection of this.#pending[stage]) {
      if (examined++ === EVICTION_CANDIDATES || !this.#hadIteration(connection.iteration)) break;
      const count = this.#perSource.get(connection.source)!;
      if (count <= most) continue;
      most = count;
      chosen = connection;
    }
    return chosen;
  }

  /** Closes a connection. Its descriptor is free when this returns. */
  #evict(connection: Connection): void {
    this.release(connection);
    connection.socket.destroy(tooManyPending());
  }

  /** Schedules eviction of stalled connections while their number is above the lower limit. */
  #trimLater(): void {
    if (this.#trimming) return;
    this.#trimming = true;
    setTimeout(() => {
      this.#trimming = false;
      while (this.#size > this.#limits.lower && this.#evictStalled());
      if (this.#size > this.#limits.lower) this.#trimLater();
    }, TRIM_INTERVAL_MS).unref();
  }
}

/** Returns a connection's time without progress as a fraction of the limit for its stage. */
function stallRatio({ stage, progressAt }: Connection): number {
  return (performance.now() - progressAt) / STALL_MS[stage];
}

/** Returns the connection with the higher `stallRatio`. */
function moreStalled(first: Connection | undefined, second: Connection | undefined): Connection | undefined {
  if (first === undefined || second === undefined) return first ?? second;
  return stallRatio(first) < stallRatio(second) ? second : first;
}

class Connection implements PendingConnection {
  readonly socket: Socket;
  readonly #all: PendingHandshakes;
  address: string | undefined;
  source: string;
  stage: Stage = "silent";
  /** Time of the last progress, in ms on the monotonic clock. */
  progressAt = 0;
  /** Event-loop iteration of the last progress. */
  iteration = 0;
  /** Number of descriptors held. */
  held = 0;

  constructor(socket: Socket, all: PendingHandshakes) {
    this.socket = socket;
    this.#all = all;
    this.address = socket.remoteAddress;
    this.source = sourceOf(this.address);
  }

  recordProgress(): void {
    const wasPending = this.#all.remove(this);
    this.stage = "started";
    if (wasPending) this.#all.insert(this);
  }

  setAddress(address: string): void {
    const wasPending = this.#all.remove(this);
    this.address = address;
    this.source = sourceOf(address);
    if (wasPending) this.#all.insert(this);
  }

  admit(descriptors: number): void {
    this.#all.remove(this);
    if (this.socket.destroyed) return;
    if (!this.#all.reserve(descriptors)) {
      const error = outOfDescriptors();
      this.socket.destroy(error);
      throw error;
    }
    this.held += descriptors;
  }
}

function tooManyPending(): RejectedError {
  return new RejectedError("ERR_SPIPED_EVICTED", "evicted");
}

function outOfDescriptors(): RejectedError {
  return new RejectedError("ERR_SPIPED_DESCRIPTORS", "descriptors-exhausted");
}
