/** Logs how far a drain has come. */
import type { Log } from "./log.ts";

/** Between two messages, ms. */
const INTERVAL_MS = 10_000;

/**
 * Logs how many connections are left, now and every ten seconds, at level `info`.
 *
 * @returns a function that stops it.
 */
export function logDrain(log: Log, countConnections: () => Promise<number>): () => void {
  let stopped = false;
  const report = async () => {
    const count = await countConnections();
    if (!stopped && count > 0)
      log.info(`draining: ${count} ${count === 1 ? "connection" : "connections"} left`);
  };
  void report();
  const timer = setInterval(() => void report(), INTERVAL_MS);
  return () => {
    stopped = true;
    clearInterval(timer);
  };
}
