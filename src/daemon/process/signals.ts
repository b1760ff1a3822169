/** Signals to the daemon: SIGTERM and SIGINT drain it, another of them ends it; SIGHUP has it reload. */
import { constants } from "node:os";
import { endProcess } from "./end-process.ts";

const ENDING = ["SIGTERM", "SIGINT"] as const;

/**
 * From now on SIGTERM and SIGINT call `cleanUp`, and then end the process the way they would have ended it without us.
 *
 * @returns a function after whose call the first of them resolves its promise instead: the daemon drains.
 */
export function onEndingSignal(cleanUp: () => void): () => Promise<void> {
  let drain: (() => void) | undefined;
  const onSignal = (signal: (typeof ENDING)[number]) => {
    if (drain !== undefined) {
      drain();
      drain = undefined;
      return;
    }
    cleanUp();
    for (const name of ENDING) process.removeListener(name, onSignal);
    process.kill(process.pid, signal);
    // The first process of a container is not ended by a signal that it has no handler for.
    endProcess(128 + constants.signals[signal]);
  };
  for (const name of ENDING) process.on(name, onSignal);
  return () =>
    new Promise((resolve) => {
      drain = resolve;
    });
}

/**
 * From now on SIGHUP asks for a reload. One is done at a time, and for all that are asked for meanwhile one more.
 *
 * @returns a function that says how to reload, which must not reject, and does it if it has been asked for already.
 */
export function onReloadSignal(): (reload: () => Promise<void>) => void {
  let how: (() => Promise<void>) | undefined;
  let asked = false;
  let busy = false;
  const reload = async () => {
    if (how === undefined || busy) return;
    busy = true;
    try {
      while (asked) {
        asked = false;
        await how();
      }
    } finally {
      busy = false;
    }
  };
  process.on("SIGHUP", () => {
    asked = true;
    void reload();
  });
  return (reloading) => {
    how = reloading;
    void reload();
  };
}
