/** Limits that hold over all workers: the primary counts, and each connection of a worker asks it for a slot. */
import type { SlotCounter } from "../../tunnel/slots.ts";
import type { WorkerMessage } from "./messages.ts";

/** The worker's side. */
export class RemoteLimits {
  readonly #send: (message: WorkerMessage) => void;
  readonly #waiting = new Map<number, () => void>();
  #tickets = 0;

  constructor(send: (message: WorkerMessage) => void) {
    this.#send = send;
  }

  /** The counter of a limit, by its id. */
  get(limit: string): SlotCounter {
    const send = this.#send;
    const tickets = this.#waiting;
    const nextTicket = () => ++this.#tickets;
    let waiting = 0;
    return {
      get waiting() {
        return waiting;
      },
      take(granted) {
        const ticket = nextTicket();
        waiting += 1;
        tickets.set(ticket, () => {
          waiting -= 1;
          granted();
        });
        send({ type: "acquire", limit, ticket });
        return () => {
          if (!tickets.delete(ticket)) return;
          waiting -= 1;
          send({ type: "cancel", limit, ticket });
        };
      },
      release: () => send({ type: "release", limit }),
    };
  }

  /** The primary has given a slot. */
  acquired(ticket: number): void {
    const granted = this.#waiting.get(ticket);
    this.#waiting.delete(ticket);
    granted?.();
  }
}
