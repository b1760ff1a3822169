/** The stream of events that the log, the metrics and, through those, the status page are made from. */
import type { ConnectionListeners } from "../../tunnel/connection-event.ts";

/** Receives the events of a daemon. */
export interface Observer extends ConnectionListeners {
  /** Called when a DNS lookup of a tunnel's target fails; the last known addresses stay in use. */
  readonly lookupFailed?: (tunnel: string | undefined) => void;
}

/** Returns an observer that forwards each event to all `observers`. */
export function combineObservers(...observers: readonly Observer[]): Observer {
  const ofAll = observers.filter(({ connection }) => connection !== undefined);
  return {
    connection:
      ofAll.length === 0
        ? undefined
        : (event, traffic) => {
            for (const observer of ofAll) observer.connection!(event, traffic);
          },
    failed: (event) => {
      for (const observer of observers) observer.failed?.(event);
    },
    lookupFailed: (tunnel) => {
      for (const observer of observers) observer.lookupFailed?.(tunnel);
    },
  };
}
