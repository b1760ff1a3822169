/** The stream of events that the log, the metrics and, through those, the status page are made from. */
import type { ConnectionListener } from "../../tunnel/connection-event.ts";

/** Receives the events of a daemon. */
export interface Observer {
  /** Called with each event of a connection. */
  readonly connection?: ConnectionListener;
  /** Called when a DNS lookup of a tunnel's target fails; the last known addresses stay in use. */
  readonly lookupFailed?: (tunnel: string | undefined) => void;
}

/** Returns an observer that forwards each event to all `observers`. */
export function combineObservers(...observers: readonly Observer[]): Observer {
  return {
    connection: (event, traffic) => {
      for (const observer of observers) observer.connection?.(event, traffic);
    },
    lookupFailed: (tunnel) => {
      for (const observer of observers) observer.lookupFailed?.(tunnel);
    },
  };
}
