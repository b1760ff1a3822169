/**
 * A warning for each connection that failed: who it was, what happened, and what to check.
 *
 * Peers can cause as many failures as they like, so that the log must be bounded: of the failures of one kind, tunnel and
 * source, one is logged, then the number of the others, at growing intervals. If there are many sources, a kind of failure
 * of a tunnel is counted over all further ones.
 */
import { deadline } from "../../net/timers.ts";
import { describeConnection, fieldsOf } from "./connection-log.ts";
import { reasonKind } from "./end-reason.ts";
import type { ConnectionInfo, Observer } from "./events.ts";
import type { Log } from "./log.ts";

/** Between two messages about failures of the same kind, ms: at first, and at most if they go on. */
const MIN_INTERVAL_MS = 60_000;
const MAX_INTERVAL_MS = 3_600_000;

/** How many series with a source there are per process; after that, those of a tunnel and kind count as one. */
const MAX_SOURCE_SERIES = 128;

/** Failures of one kind and tunnel, from one source or from many. */
interface Series {
  /** How many were not logged. */
  suppressed: number;
  /** Logs the last one. */
  logLast: (repeats: string) => void;
  /** When the last message was logged, ms on the monotonic clock. */
  loggedAt: number;
}

/** Logs failed connections at level `warn`. */
export class FailureLog implements Observer {
  readonly #log: Log;
  readonly #series = new Map<string, Series>();

  constructor(log: Log) {
    this.#log = log;
  }

  closed(connection: ConnectionInfo, reason: string, advice: string | undefined): void {
    if (advice === undefined) return;
    const { tunnel, source } = connection;
    const kind = [tunnel, reasonKind(reason), advice];
    const id = JSON.stringify([...kind, source]);
    const hasOwn = this.#series.has(id) || this.#series.size < MAX_SOURCE_SERIES;
    this.#add(hasOwn ? id : JSON.stringify(kind), (repeats) =>
      this.#log.warn(`${describeConnection(connection)} failed: ${reason}; ${advice}${repeats}`, {
        event: "failed",
        ...fieldsOf(connection),
        reason,
      }),
    );
  }

  /** Logs what was counted and not logged yet. */
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
    const wait = (interval: number) => {
      deadline(interval, () => {
        if (series.suppressed === 0) {
          this.#series.delete(id);
          return;
        }
        logRepeats(series);
        wait(Math.min(2 * interval, MAX_INTERVAL_MS));
      });
    };
    wait(MIN_INTERVAL_MS);
  }
}

function logRepeats(series: Series): void {
  if (series.suppressed === 0) return;
  const seconds = Math.round((performance.now() - series.loggedAt) / 1000);
  series.logLast(` (repeats in the last ${seconds} s: ${series.suppressed})`);
  series.suppressed = 0;
  series.loggedAt = performance.now();
}
