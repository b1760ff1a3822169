/**
 * Telling that file descriptors run out. libuv accepts and closes connections that it has no descriptor for, and says
 * so to nobody; but a descriptor is always the lowest free number, so a high one shows how few are left.
 */
import { readFileSync } from "node:fs";
import type { Socket } from "node:net";

/** How many free descriptors are worth a warning. */
const FEW = 8;

/** How long to keep quiet after a warning, ms. */
const QUIET = 60_000;

/** How many descriptors this process may have; `Infinity` where the system does not say. Node raises it at its start. */
export function descriptorLimit(): number {
  try {
    const found = /^Max open files\s+(\d+)/m.exec(readFileSync("/proc/self/limits", "latin1"));
    return found === null ? Number.POSITIVE_INFINITY : Number(found[1]);
  } catch {
    // No such file: not Linux.
    return Number.POSITIVE_INFINITY;
  }
}

/**
 * Watches the sockets of a listener. To be made before descriptors run out, for it reads the limit.
 *
 * @param warn called if hardly any descriptor is left beside a socket, at most once a minute.
 * @returns a function to be called with each socket that has just been accepted.
 */
export function watchDescriptors(warn: (error: Error) => void): (socket: Socket) => void {
  const limit = descriptorLimit();
  let warnedAt = Number.NEGATIVE_INFINITY;
  return (socket) => {
    const { _handle } = socket as { _handle?: { fd?: number } | null };
    const left = limit - (_handle?.fd ?? 0);
    if (left > FEW || performance.now() - warnedAt < QUIET) return;
    warnedAt = performance.now();
    warn(new Error(`file descriptors run out: the limit is ${limit} (ulimit -n)`));
  };
}
