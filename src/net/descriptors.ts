/**
 * Limits the file descriptors that connections use. Without a free descriptor, libuv accepts and closes connections
 * without reporting it. So some descriptors are reserved for other uses, and a connection is closed deliberately before
 * the process runs out.
 */
import { readFileSync } from "node:fs";

/** Descriptors for listening sockets, the log, DNS lookups, the status address, and the 22 that Node opens itself. */
const BASE_RESERVE = 40;
const MAX_RESERVE = 256;
/** Minimum number of descriptors for connections, regardless of the limit. */
const MIN_USABLE = 8;

/** Minimum time between warnings, in ms. */
const WARN_INTERVAL_MS = 60_000;

/**
 * Returns the limit on this process's descriptors, `Infinity` if unknown. Node raises its soft limit to the hard limit
 * at startup.
 */
export function descriptorLimit(): number {
  try {
    const found = /^Max open files\s+(\d+)/m.exec(readFileSync("/proc/self/limits", "latin1"));
    return found === null ? Number.POSITIVE_INFINITY : Number(found[1]);
  } catch {
    // Not Linux.
    return Number.POSITIVE_INFINITY;
  }
}

/** Counts the descriptors in use by connections against their limit. */
export class DescriptorBudget {
  readonly #limit: number;
  /** Maximum number of descriptors for all connections. */
  readonly usable: number;
  readonly #warn: (error: Error) => void;
  #warnedAt = Number.NEGATIVE_INFINITY;
  #taken = 0;

  /** @param warn - called if connections are closed for lack of descriptors, at most once a minute. */
  constructor(warn: (error: Error) => void) {
    this.#limit = descriptorLimit();
    const reserve = Math.min(MAX_RESERVE, BASE_RESERVE + this.#limit / 16);
    this.usable = Math.max(MIN_USABLE, Math.floor(this.#limit - reserve));
    this.#warn = warn;
  }

  /** Returns true if `count` more descriptors are available. */
  has(count: number): boolean {
    return this.#taken + count <= this.usable;
  }

  take(count: number): void {
    this.#taken += count;
  }

  release(count: number): void {
    this.#taken -= count;
  }

  /** Warns that connections fail for lack of descriptors. */
  reportShortage(): void {
    const now = performance.now();
    if (now - this.#warnedAt < WARN_INTERVAL_MS) return;
    this.#warnedAt = now;
    this.#warn(new Error(`file descriptors run out: the limit is ${this.#limit} (ulimit -n)`));
  }
}
