/**
 * A warning for each connection that failed: who it was, what happened, and what to check.
 *
 * Peers can cause as many failures as they like, so that the log must be bounded: of the failures of one kind, tunnel and
 * source, one is logged, then the number of the others, at growing intervals.
 */
import { deadline } from "../tunnel/deadline.ts";
import { describeConnection, fieldsOf } from "./connection-log.ts";
import type { Log } from "./log.ts";
import type { ConnectionInfo, Observer } from "./observer.ts";
import { reasonKind } from "./reason.ts";

/** Between two messages about failures of the same kind, ms: at first, and at most if they go on. */
const MIN_INTERVAL_MS = 60_000;
const MAX_INTERVAL_MS = 3_600_000;

/** How many kinds, tunnels and sources are told apart per process; all others count as one. */
const MAX_SERIES = 128;

/** Failures of one kind, tunnel and source. */
interface Series {
  /** How many were not logged. */
  suppressed: number;
  /** Logs the last one. */
  logLast: (count: string) => void;
}

/** Logs failed connections at level `warn`. */
export function failureLog(log: Log): Observer {
  const all = new Map<string, Series>();

  const add = (id: string, logOne: (count: string) => void) => {
    const known = all.get(id);
    if (known !== undefined) {
      known.suppressed += 1;
      known.logLast = logOne;
      return;
    }
    logOne("");
    const series: Series = { suppressed: 0, logLast: logOne };
    all.set(id, series);
    const wait = (interval: number) => {
      deadline(interval, () => {
        if (series.suppressed === 0) {
          all.delete(id);
          return;
        }
        series.logLast(` (repeats in the last ${interval / 60_000} min: ${series.suppressed})`);
        series.suppressed = 0;
        wait(Math.min(2 * interval, MAX_INTERVAL_MS));
      });
    };
    wait(MIN_INTERVAL_MS);
  };

  return {
    closed(connection: ConnectionInfo, reason: string, advice: string | undefined) {
      if (advice === undefined) return;
      const id = JSON.stringify([connection.tunnel, connection.source, reasonKind(reason)]);
      const isKnown = all.has(id) || all.size < MAX_SERIES;
      add(isKnown ? id : "others", (count) =>
        log.warn(`${describeConnection(connection)} failed: ${reason}; ${advice}${count}`, {
          event: "failed",
          ...fieldsOf(connection),
          reason,
        }),
      );
    },
  };
}
