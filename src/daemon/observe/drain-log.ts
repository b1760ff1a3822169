/** Logs the progress of a drain. */
import type { Log } from "./log.ts";

/** Time between messages, in ms. */
const INTERVAL_MS = 10_000;

/**
 * Logs the number of remaining connections, now and every ten seconds, at level `info`.
 *
 * @returns a function that stops the messages.
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
