/**
 * How many file descriptors connections may use. libuv accepts and closes connections that it has no descriptor for, and
 * reports that to nobody, so the limit is kept here: some descriptors are left to everything that is no connection, and a
 * connection is closed on purpose before the process runs out.
 */
import { readFileSync } from "node:fs";

/** Listening sockets, the log, DNS lookups, the status address, and what Node opens for itself, of which there are 22. */
const BASE_RESERVE = 40;
const MAX_RESERVE = 256;
/** However low the limit is. */
const MIN_USABLE = 8;

/** How long to keep quiet after a warning, ms. */
const WARN_INTERVAL_MS = 60_000;

/**
 * Returns how many descriptors this process may have, `Infinity` if the system does not say. Node raises its limit to
 * the hard one when it starts.
 */
export function descriptorLimit(): number {
  try {
    const found = /^Max open files\s+(\d+)/m.exec(readFileSync("/proc/self/limits", "latin1"));
    return found === null ? Number.POSITIVE_INFINITY : Number(found[1]);
  } catch {
    // No such file: not Linux.
    return Number.POSITIVE_INFINITY;
  }
}

/** Counts the descriptors that connections hold, of those that they may hold. */
export class DescriptorBudget {
  readonly #limit: number;
  /** How many descriptors connections may hold in all. */
  readonly usable: number;
  readonly #warn: (error: Error) => void;
  #warnedAt = Number.NEGATIVE_INFINITY;
  #taken = 0;

  /** @param warn called if connections have to be closed for lack of descriptors, at most once a minute. */
  constructor(warn: (error: Error) => void) {
    this.#limit = descriptorLimit();
    const reserve = Math.min(MAX_RESERVE, BASE_RESERVE + this.#limit / 16);
    this.usable = Math.max(MIN_USABLE, Math.floor(this.#limit - reserve));
    this.#warn = warn;
  }

  /** True if `count` more may be taken. */
  has(count: number): boolean {
    return this.#taken + count <= this.usable;
  }

  take(count: number): void {
    this.#taken += count;
  }

  release(count: number): void {
    this.#taken -= count;
  }

  /** Warns that the limit makes connections fail. */
  reportShortage(): void {
    const now = performance.now();
    if (now - this.#warnedAt < WARN_INTERVAL_MS) return;
    this.#warnedAt = now;
    this.#warn(new Error(`file descriptors run out: the limit is ${this.#limit} (ulimit -n)`));
  }
}
