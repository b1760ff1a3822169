/** The events that all connections of the process publish on its diagnostics channels, and whether they may be so. */
import type { ConnectionEvent } from "../../src/tunnel/connection-event.ts";
import type { Trace } from "./trace.ts";

export class Journal {
  /** Types of the events of each connection, by its ID. */
  readonly #events = new Map<number, ConnectionEvent["type"][]>();
  readonly #trace: Trace;
  readonly #onViolation: (message: string) => void;
  /** The first ID of the world. */
  #base: number | undefined;

  constructor(trace: Trace, onViolation: (message: string) => void) {
    this.#trace = trace;
    this.#onViolation = onViolation;
  }

  /** Number of connections. */
  get size(): number {
    return this.#events.size;
  }

  /** Returns the types of the events of each connection that has not been reported as closed. */
  get open(): string[] {
    return [...this.#events.values()].filter((types) => !types.includes("closed")).map(String);
  }

  readonly add = (event: ConnectionEvent): void => {
    const { id, type, mode } = event;
    this.#base ??= id;
    this.#trace.record(`${mode}-${type}`, id - this.#base, type === "closed" ? event.reason : "");
    const types = this.#events.get(id) ?? [];
    if (types.length === 0) this.#events.set(id, types);
    const where = `connection ${id - this.#base}`;
    const isFirst = type === "accepted" || (type === "connecting" && event.peer === undefined);
    if (types.length === 0 && !isFirst) this.#onViolation(`${where}: ${type} is its first event`);
    if (types.includes("closed")) this.#onViolation(`${where}: ${type} after it has closed`);
    if (types.includes(type) && type !== "connected") this.#onViolation(`${where}: ${type} twice`);
    if (type === "opened" && !types.includes("authenticated"))
      this.#onViolation(`${where}: opened before it is authenticated`);
    if (type === "closed") {
      if (event.reason === "internal-error") this.#onViolation(`${where}: ${event.text}`);
      if (event.opened !== types.includes("opened")) this.#onViolation(`${where}: opened is ${event.opened}`);
    }
    types.push(type);
  };
}
