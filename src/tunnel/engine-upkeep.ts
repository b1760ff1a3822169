/** Schedules an engine's upkeep: when all events of an event-loop iteration have been handled, and once in a while. */
import type { Engine } from "../protocol/engine/engine.ts";

/** Time without use after which keystream is wiped, in ms; at most twice as long. */
const UNUSED_MS = 1000;

const maintained = new WeakSet<Engine>();

/** Does the upkeep of an engine from now on. */
export function maintain(engine: Engine): void {
  const { upkeep } = engine;
  if (upkeep === undefined || maintained.has(engine)) return;
  maintained.add(engine);
  let isScheduled = false;
  let isWatching = false;
  const refill = () => {
    isScheduled = false;
    upkeep.refill();
  };
  const watch = () => {
    isWatching = upkeep.releaseUnused();
    if (isWatching) setTimeout(watch, UNUSED_MS).unref();
  };
  upkeep.onWork = () => {
    if (!isScheduled) setImmediate(refill);
    isScheduled = true;
    if (!isWatching) setTimeout(watch, UNUSED_MS).unref();
    isWatching = true;
  };
}
