/** Connection limits shared by all workers: the primary counts, and workers request a slot for each connection. */
import type { Limiter } from "../../tunnel/connection-limit.ts";
import type { WorkerMessage } from "./messages.ts";

/** The worker's side of the shared limits. */
export class RemoteLimits {
  readonly #send: (message: WorkerMessage) => void;
  readonly #pending = new Map<number, () => void>();
  #lastRequestId = 0;

  constructor(send: (message: WorkerMessage) => void) {
    this.#send = send;
  }

  /** Returns a limit by its ID. */
  get(limit: string): Limiter {
    const send = this.#send;
    const pending = this.#pending;
    const nextRequestId = () => ++this.#lastRequestId;
    let waiting = 0;
    return {
      get waiting() {
        return waiting;
      },
      acquire(onAcquired) {
        const requestId = nextRequestId();
        waiting += 1;
        pending.set(requestId, () => {
          waiting -= 1;
          onAcquired();
        });
        send({ type: "acquire", limit, requestId });
        return () => {
          if (!pending.delete(requestId)) return;
          waiting -= 1;
          send({ type: "cancel", limit, requestId });
        };
      },
      release: () => send({ type: "release", limit }),
    };
  }

  /** Handles a slot granted by the primary. */
  acquired(requestId: number): void {
    const onAcquired = this.#pending.get(requestId);
    this.#pending.delete(requestId);
    onAcquired?.();
  }
}
