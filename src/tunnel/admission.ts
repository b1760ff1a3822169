/** What a process remembers of its clients in order to decide which of them it serves, over all tunnels and reloads. */
import type { Socket } from "node:net";
import { DescriptorBudget } from "../net/descriptors.ts";
import { Penalties } from "./penalties.ts";
import {
  MAX_PENDING,
  MAX_PENDING_BURST,
  type PendingConnection,
  PendingHandshakes,
} from "./pending-handshakes.ts";
import { VerificationQueue } from "./verification-queue.ts";

/** How long to keep quiet about penalties after one was reported, ms. */
const PENALTY_REPORT_INTERVAL_MS = 10_000;

/** What an admission needs. */
export interface AdmissionOptions {
  /** How many processes share the limits on unauthenticated connections. Defaults to 1. */
  readonly processes?: number;
  /** Called if connections are closed for lack of file descriptors, at most once a minute. */
  readonly onShortage: (error: Error) => void;
  /** Called when a source is penalized, at most every ten seconds, with one line for the log. */
  readonly onPenalty?: (message: string) => void;
}

/** One for each process. */
export class Admission {
  readonly penalties: Penalties;
  readonly verifications = new VerificationQueue();
  readonly #pending: PendingHandshakes;
  readonly #onPenalty: ((message: string) => void) | undefined;
  #reportedAt = Number.NEGATIVE_INFINITY;
  #unreported = 0;

  constructor({ processes = 1, onShortage, onPenalty }: AdmissionOptions) {
    this.#onPenalty = onPenalty;
    this.penalties = new Penalties((source, duration) => this.#reportPenalty(source, duration));
    this.#pending = new PendingHandshakes(
      { lower: Math.ceil(MAX_PENDING / processes), upper: Math.ceil(MAX_PENDING_BURST / processes) },
      new DescriptorBudget(onShortage),
    );
  }

  /**
   * Counts a socket that has just been accepted. It may be destroyed on return, and at any time until it is admitted.
   */
  accept(socket: Socket): PendingConnection {
    return this.#pending.add(socket);
  }

  #reportPenalty(source: string, duration: number): void {
    const now = performance.now();
    if (now - this.#reportedAt < PENALTY_REPORT_INTERVAL_MS) {
      this.#unreported += 1;
      return;
    }
    const others =
      this.#unreported === 0 ? "" : ` (and ${this.#unreported} more penalties since the last report)`;
    this.#reportedAt = now;
    this.#unreported = 0;
    this.#onPenalty?.(
      `closing connections from ${source} for ${Math.ceil(duration / 1000)} s: its handshakes failed with a wrong key${others}`,
    );
  }
}
