/** What a server has reported about its connections, and whether it may be so. */
import type { ConnectionEvent, ConnectionStep } from "../../src/tunnel/connection-event.ts";

/** A connection as its events describe it. */
export interface Entry {
  readonly mode: "encrypt" | "decrypt";
  /** Port of the client; undefined if it had left before it was accepted. */
  readonly port: number | undefined;
  last: ConnectionEvent["type"];
  readonly steps: Set<ConnectionStep>;
  reason: string | undefined;
  text: string | undefined;
}

/** Steps of which one must come before another, by mode. */
const ORDER: Record<"encrypt" | "decrypt", readonly (readonly [ConnectionStep, ConnectionStep])[]> = {
  encrypt: [
    ["connecting", "connected"],
    ["connected", "authenticated"],
    ["authenticated", "opened"],
  ],
  decrypt: [
    ["authenticated", "waiting"],
    ["authenticated", "connecting"],
    ["connecting", "connected"],
    ["connected", "opened"],
  ],
};

/** The connections of a server, by the number that it gave them. */
export class Ledger {
  readonly entries = new Map<number, Entry>();
  /** Number of open connections whose clients are not authenticated. */
  unauthenticated = 0;
  readonly #name: string;
  readonly #record: (kind: string, id: number, detail: string) => void;
  readonly #onViolation: (message: string) => void;

  constructor(
    name: string,
    record: (kind: string, id: number, detail: string) => void,
    onViolation: (message: string) => void,
  ) {
    this.#name = name;
    this.#record = record;
    this.#onViolation = onViolation;
  }

  /** Returns the connection of a client. */
  byPort(port: number | undefined): Entry | undefined {
    if (port === undefined) return undefined;
    for (const entry of this.entries.values()) if (entry.port === port) return entry;
    return undefined;
  }

  get open(): Entry[] {
    return [...this.entries.values()].filter(({ last }) => last !== "closed");
  }

  count(step: ConnectionStep): number {
    let count = 0;
    for (const { steps } of this.entries.values()) if (steps.has(step)) count += 1;
    return count;
  }

  readonly connection = (event: ConnectionEvent): void => {
    const { type, number, mode, peer } = event;
    const where = `${this.#name} connection ${number}`;
    this.#record(`${this.#name}-${type}`, number, type === "closed" ? event.reason : "");
    const entry = this.entries.get(number);
    if (entry === undefined) {
      if (type !== "accepted") this.#onViolation(`${where}: ${type} before it is accepted`);
      this.unauthenticated += 1;
      this.entries.set(number, {
        mode,
        port: peer?.includes(":") === true ? Number(peer.split(":").at(-1)) : undefined,
        last: type,
        steps: new Set(["accepted"]),
        reason: undefined,
        text: undefined,
      });
      return;
    }
    if (entry.last === "closed") this.#onViolation(`${where}: ${type} after it has closed`);
    entry.last = type;
    const isFirst = !entry.steps.has("authenticated");
    if ((type === "authenticated" || type === "closed") && isFirst) this.unauthenticated -= 1;
    if (type === "closed") {
      entry.reason = event.reason;
      entry.text = event.text;
      if (event.reason === "internal-error") this.#onViolation(`${where}: ${event.text}`);
      return;
    }
    if (type === "accepted") this.#onViolation(`${where}: accepted twice`);
    for (const [before, after] of ORDER[mode]) {
      if (type === after && !entry.steps.has(before))
        this.#onViolation(`${where}: ${after} before ${before}`);
    }
    entry.steps.add(type);
  };
}
