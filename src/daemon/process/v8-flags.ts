/** V8 heap settings for a long-running process with many idle connections. */
import { setFlagsFromString } from "node:v8";

/**
 * Keeps the young generation at its initial size. V8 doubles it when many connections arrive and never shrinks it,
 * which cost 17 of 41 KiB for each of 1,000 idle connections. The hot path allocates so little that a larger one gains
 * nothing. Call at startup.
 *
 * Also makes V8 collect it with one thread: for so small a generation, several would only take CPU time from the client
 * and the target (one thread gave 7% more connections per second on two cores).
 */
export function limitYoungGeneration(): void {
  setFlagsFromString("--semi-space-growth-factor=1");
  setFlagsFromString("--no-parallel-scavenge");
}
