/** Limits on simultaneous connections, per tunnel and per key, and on unauthenticated connections. */
import { Admission } from "../tunnel/admission.ts";
import { ConnectionLimit } from "../tunnel/connection-limit.ts";
import type { Log } from "./observe/log.ts";

/** Holds the connection limits; their counts persist when a limit changes. */
export class Limits {
  readonly #log: Log;
  readonly #limits = new Map<string, ConnectionLimit>();

  /** @param log - gets a warning each time a limit is reached, in the wording of Tarsnap's spiped plus names. */
  constructor(log: Log) {
    this.#log = log;
  }

  /** Returns the limit of a tunnel, or of one of its keys, and sets its maximum to `limit`. */
  get(tunnel: string | undefined, key: string | undefined, limit: number): ConnectionLimit {
    const id = limitId(tunnel, key);
    const known = this.#limits.get(id);
    if (known !== undefined) {
      known.setLimit(limit);
      return known;
    }
    const prefix = tunnel === undefined ? "" : `${tunnel}: `;
    const suffix = key === undefined ? "" : ` for key ${key}`;
    const created = new ConnectionLimit(limit, () =>
      this.#log.warn(`${prefix}Maximum number of connections (${created.limit})${suffix} reached`),
    );
    this.#limits.set(id, created);
    return created;
  }

  /** Returns a limit that `get()` has created. */
  byId(id: string): ConnectionLimit | undefined {
    return this.#limits.get(id);
  }
}

/**
 * Creates this process's limits on unauthenticated connections.
 *
 * @param processes - number of processes that share the limits.
 */
export function makeAdmission(log: Log, processes: number): Admission {
  return new Admission({
    processes,
    onShortage: (error) => log.warn(`Error accepting a connection: ${error.message}`),
    onPenalty: (message) => log.warn(message),
  });
}

/** Returns the ID of a limit. */
export function limitId(tunnel: string | undefined, key: string | undefined): string {
  return JSON.stringify([tunnel ?? null, key ?? null]);
}
