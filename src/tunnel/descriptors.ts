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

let limit: number | undefined;
let warnedAt = Number.NEGATIVE_INFINITY;

/** How many descriptors this process may have; `Infinity` where the system does not say. Node raises it at its start. */
function descriptorLimit(): number {
  if (limit === undefined) {
    limit = Number.POSITIVE_INFINITY;
    try {
      const found = /^Max open files\s+(\d+)/m.exec(readFileSync("/proc/self/limits", "latin1"));
      if (found !== null) limit = Number(found[1]);
    } catch {
      // No such file: not Linux.
    }
  }
  return limit;
}

/**
 * Looks at a socket that has just been accepted.
 *
 * @param warn called if hardly any descriptor is left beside it, at most once a minute.
 */
export function watchDescriptors(socket: Socket, warn: (error: Error) => void): void {
  const { _handle } = socket as { _handle?: { fd?: number } | null };
  const left = descriptorLimit() - (_handle?.fd ?? 0);
  if (left > FEW || performance.now() - warnedAt < QUIET) return;
  warnedAt = performance.now();
  warn(new Error(`file descriptors run out: the limit is ${limit} (ulimit -n), -n may be too high for it`));
}
