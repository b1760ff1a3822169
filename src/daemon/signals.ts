/** Signals that end the daemon: the first one drains it, the second one ends it. */
import { constants } from "node:os";

const ENDING = ["SIGTERM", "SIGINT"] as const;

/**
 * Calls `drain` at the first SIGTERM or SIGINT, and `cleanUp` at the second, which then ends the process the way it
 * would have ended it without us.
 */
export function onEndingSignal(drain: () => void, cleanUp: () => void): void {
  let draining = false;
  const onSignal = (signal: (typeof ENDING)[number]) => {
    if (!draining) {
      draining = true;
      drain();
      return;
    }
    cleanUp();
    for (const name of ENDING) process.removeListener(name, onSignal);
    process.kill(process.pid, signal);
    // The first process of a container is not ended by a signal that it has no handler for.
    process.exit(128 + constants.signals[signal]);
  };
  for (const name of ENDING) process.on(name, onSignal);
}
