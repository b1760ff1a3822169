/**
 * Warns about failed connections, with the client, the reason and advice.
 *
 * Peers can cause any number of failures, so the log is rate-limited: of failures of the same kind, tunnel and source,
 * the first is logged, then the number of repeats at increasing intervals. Beyond a maximum number of sources, failures
 * of the same kind and tunnel are counted together.
 */
import { startTimeout } from "../../net/timers.ts";
import type { ClosedEvent } from "../../tunnel/connection-event.ts";
import { describeConnection, fieldsOf } from "./connection-log.ts";
import type { Observer } from "./events.ts";
import type { Log } from "./log.ts";

/** Initial and maximum interval between messages about failures of the same series, in ms. */
const MIN_INTERVAL_MS = 60_000;
const MAX_INTERVAL_MS = 3_600_000;

/** Maximum number of series per source, in one process; beyond it, series are per kind and tunnel. */
const MAX_SOURCE_SERIES = 128;

/** Failures of the same kind and tunnel, from one source or from many. */
interface Series {
  /** Number of failures that were not logged. */
  suppressed: number;
  /** Logs the last failure. */
  logLast: (repeats: string) => void;
  /** Time of the last message, in ms on the monotonic clock. */
  loggedAt: number;
}

/** Logs failed connections at level `warn`. */
export class FailureLog implements Observer {
  readonly #log: Log;
  readonly #series = new Map<string, Series>();

  constructor(log: Log) {
    this.#log = log;
  }

  failed(event: ClosedEvent): void {
    const { tunnel, source, reason, text, label, advice } = event;
    const hint = advice === undefined ? "" : `; ${advice}`;
    const kind = [tunnel, reason, label, advice];
    const id = JSON.stringify([...kind, source]);
    const hasOwn = this.#series.has(id) || this.#series.size < MAX_SOURCE_SERIES;
    this.#add(hasOwn ? id : JSON.stringify(kind), (repeats) =>
      this.#log.warn(`${describeConnection(event)} failed: ${text}${hint}${repeats}`, {
        event: "failed",
        ...fieldsOf(event),
        reason: text,
        reason_id: reason,
      }),
    );
  }

  /** Logs the repeats that were counted and not logged yet. */
  flush(): void {
    for (const series of this.#series.values()) logRepeats(series);
  }

  #add(id: string, log: (repeats: string) => void): void {
    const known = this.#series.get(id);
    if (known !== undefined) {
      known.suppressed += 1;
      known.logLast = log;
      return;
    }
    log("");
    const series: Series = { suppressed: 0, logLast: log, loggedAt: performance.now() };
    this.#series.set(id, series);
    const schedule = (interval: number) => {
      startTimeout(interval, () => {
        if (series.suppressed === 0) {
          this.#series.delete(id);
          return;
        }
        logRepeats(series);
        schedule(Math.min(2 * interval, MAX_INTERVAL_MS));
      });
    };
    schedule(MIN_INTERVAL_MS);
  }
}

function logRepeats(series: Series): void {
  if (series.suppressed === 0) return;
  const seconds = Math.round((performance.now() - series.loggedAt) / 1000);
  series.logLast(` (repeats in the last ${seconds} s: ${series.suppressed})`);
  series.suppressed = 0;
  series.loggedAt = performance.now();
}
