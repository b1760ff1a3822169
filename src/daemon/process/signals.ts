/** Signal handling: the first SIGTERM or SIGINT drains the daemon, the second terminates it; SIGHUP reloads. */
import { constants } from "node:os";
import { endProcess } from "./end-process.ts";

const TERMINATION_SIGNALS = ["SIGTERM", "SIGINT"] as const;

/**
 * Installs handlers for SIGTERM and SIGINT that call `cleanUp` and then terminate the process by the same signal.
 *
 * @returns a function whose promise resolves on the next of these signals, instead of termination; the caller then
 * drains.
 */
export function onTerminationSignal(cleanUp: () => void): () => Promise<void> {
  let drain: (() => void) | undefined;
  const onSignal = (signal: (typeof TERMINATION_SIGNALS)[number]) => {
    if (drain !== undefined) {
      drain();
      drain = undefined;
      return;
    }
    cleanUp();
    for (const name of TERMINATION_SIGNALS) process.removeListener(name, onSignal);
    process.kill(process.pid, signal);
    // Signals without a handler do not terminate the first process of a container.
    endProcess(128 + constants.signals[signal]);
  };
  for (const name of TERMINATION_SIGNALS) process.on(name, onSignal);
  return () =>
    new Promise((resolve) => {
      drain = resolve;
    });
}

/**
 * Installs a handler for SIGHUP. Reloads run one at a time; requests during a reload cause one more.
 *
 * @returns a function that sets the reload function, which must not reject, and runs it if a reload was already
 * requested.
 */
export function onReloadSignal(): (reload: () => Promise<void>) => void {
  let reload: (() => Promise<void>) | undefined;
  let requested = false;
  let busy = false;
  const run = async () => {
    if (reload === undefined || busy) return;
    busy = true;
    try {
      while (requested) {
        requested = false;
        await reload();
      }
    } finally {
      busy = false;
    }
  };
  process.on("SIGHUP", () => {
    requested = true;
    void run();
  });
  return (newReload) => {
    reload = newReload;
    void run();
  };
}
