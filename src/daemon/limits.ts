/** The limits on connections: simultaneous ones, of tunnels and of keys, and unauthenticated ones. */
import { Admission } from "../tunnel/admission.ts";
import { Slots } from "../tunnel/slots.ts";
import type { Log } from "./observe/log.ts";

/** Keeps the count of each limit, over changes of the limit. */
export class Limits {
  readonly #log: Log;
  readonly #slots = new Map<string, Slots>();

  /** @param log told each time a limit is reached, in the original's words where it has some. */
  constructor(log: Log) {
    this.#log = log;
  }

  /** The counter of a tunnel, or of one of its keys, with the limit that holds from now on. */
  get(tunnel: string | undefined, key: string | undefined, limit: number): Slots {
    const id = limitId(tunnel, key);
    const known = this.#slots.get(id);
    if (known !== undefined) {
      known.setLimit(limit);
      return known;
    }
    const where = tunnel === undefined ? "" : `${tunnel}: `;
    const whose = key === undefined ? "" : ` for key ${key}`;
    const slots = new Slots(limit, () =>
      this.#log.warn(`${where}Maximum number of connections (${slots.limit})${whose} reached`),
    );
    this.#slots.set(id, slots);
    return slots;
  }

  /** The counter that `get` has made. */
  byId(id: string): Slots | undefined {
    return this.#slots.get(id);
  }
}

/**
 * The limits on unauthenticated connections of this process.
 *
 * @param processes how many share them.
 */
export function makeAdmission(log: Log, processes: number): Admission {
  return new Admission({
    processes,
    onShortage: (error) => log.warn(`Error accepting a connection: ${error.message}`),
    onPenalty: (message) => log.warn(message),
  });
}

/** Names a limit. */
export function limitId(tunnel: string | undefined, key: string | undefined): string {
  return JSON.stringify([tunnel ?? null, key ?? null]);
}
