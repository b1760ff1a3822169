/**
 * Accepted connections whose client is not authenticated. They use no slot of `-n`, but their number is limited, over all
 * tunnels of the process and over reloads, from the moment of accept.
 *
 * If there are too many, those without progress are closed. A client with the key sends its nonce at once and its proof
 * one round trip later; an attacker's connections stop somewhere, most of them before the first byte. There are two limits.
 * Above the lower one, connections without progress for a while are closed, so that a burst of honest clients may exceed
 * it. At the upper one a connection is closed for each new one, from a source that has many.
 */
import type { Socket } from "node:net";
import { SpipedError } from "../errors.ts";
import { sourceOf } from "../net/client-source.ts";
import type { DescriptorBudget } from "../net/descriptors.ts";

/** The lower limit, of a process that shares it with no other. */
export const MAX_PENDING = 1024;
/** The upper limit: as many as Linux lets wait in an accept queue, which libuv empties in one go. */
export const MAX_PENDING_BURST = 4096;
/** How far a client has come. */
type Stage = "silent" | "started";
/**
 * How long a connection may be without progress before it may be closed above the lower limit, ms. A nonce is sent at
 * once; after it a client computes, and many behind one address compute for each other's time.
 */
const PATIENCE_MS: Readonly<Record<Stage, number>> = { silent: 500, started: 3000 };
const TRIM_INTERVAL_MS = 100;
/** How many of the connections that are longest without progress are looked at for the source that has most. */
const EVICTION_CANDIDATES = 32;

/** An accepted connection, which is pending until it is admitted. */
export interface PendingConnection {
  /** The client's address; undefined for a UNIX socket. */
  readonly address: string | undefined;
  /** What limits and penalties count its client by. */
  readonly source: string;
  /** Reports that the client's nonce, or its proof, has arrived. */
  progress(): void;
  /** Reports the client's address, which a load balancer has sent, as progress. */
  locate(address: string): void;
  /**
   * Ends the waiting: the client is authenticated, or needs not be.
   *
   * @param descriptors how many more the connection will need.
   * @throws SpipedError `ERR_SPIPED_DESCRIPTORS` if there are not as many; the socket is destroyed then.
   */
  admit(descriptors: number): void;
}

/** Limits for pending connections. */
export interface PendingLimits {
  readonly lower: number;
  readonly upper: number;
}

/** The pending connections of a process. */
export class PendingHandshakes {
  readonly #limits: PendingLimits;
  readonly #budget: DescriptorBudget;
  /** Those that are longest without progress in front. */
  readonly #pending = { silent: new Set<Connection>(), started: new Set<Connection>() };
  readonly #perSource = new Map<string, number>();
  /** True if descriptors are what the upper limit comes from. */
  readonly #fewDescriptors: boolean;
  /** Counts the turns of the event loop, up to the second after an insertion. */
  #turn = 0;
  #lastInsertion = 0;
  #counting = false;
  #trimming = false;

  constructor(limits: PendingLimits, budget: DescriptorBudget) {
    const share = Math.floor(budget.usable / 2);
    this.#fewDescriptors = share < limits.upper;
    this.#limits = { lower: Math.min(limits.lower, share), upper: Math.min(limits.upper, share) };
    this.#budget = budget;
  }

  /**
   * Counts an accepted socket, until it closes, and closes another one if there are too many. If the socket itself has to
   * be closed, it is destroyed with an error on return.
   */
  add(socket: Socket): PendingConnection {
    const connection = new Connection(socket, this);
    const { lower, upper } = this.#limits;
    const evicted = this.#size < lower || this.#evictStalled() || this.#size < upper || this.#evictOne();
    if (!evicted || !this.reserve(1)) {
      if (this.#fewDescriptors) this.#budget.reportShortage();
      socket.destroy(evicted ? outOfDescriptors() : tooMany());
      return connection;
    }
    connection.held = 1;
    socket.once("close", () => this.release(connection));
    this.insert(connection);
    if (this.#size > lower) this.#trimLater();
    return connection;
  }

  get #size(): number {
    return this.#pending.silent.size + this.#pending.started.size;
  }

  /** Takes descriptors, from pending connections if there are no others. */
  reserve(count: number): boolean {
    while (!this.#budget.has(count)) {
      this.#budget.reportShortage();
      if (!this.#evictOne()) return false;
    }
    this.#budget.take(count);
    return true;
  }

  /** Gives back all that a connection holds. */
  release(connection: Connection): void {
    this.remove(connection);
    this.#budget.release(connection.held);
    connection.held = 0;
  }

  insert(connection: Connection): void {
    connection.turn = this.#turn;
    connection.progressAt = performance.now();
    this.#pending[connection.stage].add(connection);
    this.#perSource.set(connection.source, (this.#perSource.get(connection.source) ?? 0) + 1);
    this.#lastInsertion = this.#turn;
    if (!this.#counting) this.#countTurns();
  }

  #countTurns(): void {
    this.#counting = !this.#hadATurn(this.#lastInsertion);
    if (!this.#counting) return;
    setImmediate(() => {
      this.#turn += 1;
      this.#countTurns();
    }).unref();
  }

  /** True if the event loop has had a whole turn since one, so that what had arrived by then was read. */
  #hadATurn(since: number): boolean {
    return this.#turn - since >= 2;
  }

  /** Returns false if the connection was not pending. */
  remove(connection: Connection): boolean {
    if (!this.#pending[connection.stage].delete(connection)) return false;
    const left = this.#perSource.get(connection.source)! - 1;
    if (left === 0) this.#perSource.delete(connection.source);
    else this.#perSource.set(connection.source, left);
    return true;
  }

  /** Closes a connection that is without progress for long enough, if there is one. */
  #evictStalled(): boolean {
    const [silent] = this.#pending.silent;
    const [started] = this.#pending.started;
    const oldest = leastPatience(silent, started);
    if (oldest === undefined || patienceUsed(oldest) < 1) return false;
    this.#evict(oldest);
    return true;
  }

  /**
   * Closes a connection, unless none had a chance to make progress. Both stages are measured by what is normal in them, so
   * that a new client is not closed in favor of those who have stopped in the middle of a handshake.
   */
  #evictOne(): boolean {
    const chosen = leastPatience(this.#candidateOf("silent"), this.#candidateOf("started"));
    if (chosen === undefined) return false;
    this.#evict(chosen);
    if (this.#fewDescriptors) this.#budget.reportShortage();
    return true;
  }

  /** Returns one of those that are longest without progress, whose source has most. */
  #candidateOf(stage: Stage): Connection | undefined {
    let chosen: Connection | undefined;
    let most = 0;
    let looked = 0;
    for (const connection of this.#pending[stage]) {
      if (looked++ === EVICTION_CANDIDATES || !this.#hadATurn(connection.turn)) break;
      const count = this.#perSource.get(connection.source)!;
      if (count <= most) continue;
      most = count;
      chosen = connection;
    }
    return chosen;
  }

  /** The descriptor is closed on return. */
  #evict(connection: Connection): void {
    this.release(connection);
    connection.socket.destroy(tooMany());
  }

  /** Closes those above the lower limit as soon as they are long enough without progress. */
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

/** How long a connection is without progress, as a part of what is normal in its stage. */
function patienceUsed({ stage, progressAt }: Connection): number {
  return (performance.now() - progressAt) / PATIENCE_MS[stage];
}

/** Returns the connection of two that is longer without progress, by what is normal in its stage. */
function leastPatience(one: Connection | undefined, other: Connection | undefined): Connection | undefined {
  if (one === undefined || other === undefined) return one ?? other;
  return patienceUsed(one) < patienceUsed(other) ? other : one;
}

class Connection implements PendingConnection {
  readonly socket: Socket;
  readonly #all: PendingHandshakes;
  address: string | undefined;
  source: string;
  stage: Stage = "silent";
  /** When the last part of the handshake arrived, ms on the monotonic clock. */
  progressAt = 0;
  /** The turn of the event loop in which that was. */
  turn = 0;
  /** Descriptors. */
  held = 0;

  constructor(socket: Socket, all: PendingHandshakes) {
    this.socket = socket;
    this.#all = all;
    this.address = socket.remoteAddress;
    this.source = sourceOf(this.address);
  }

  progress(): void {
    const wasPending = this.#all.remove(this);
    this.stage = "started";
    if (wasPending) this.#all.insert(this);
  }

  locate(address: string): void {
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

function tooMany(): SpipedError {
  return new SpipedError("ERR_SPIPED_EVICTED", "too many unauthenticated connections");
}

function outOfDescriptors(): SpipedError {
  return new SpipedError("ERR_SPIPED_DESCRIPTORS", "too many connections for the limit on file descriptors");
}
