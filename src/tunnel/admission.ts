/** Decides which clients a process serves. Its state covers all tunnels and survives reloads. */
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

/** Minimum time between two reports of penalties, in ms. */
const PENALTY_REPORT_INTERVAL_MS = 10_000;

/** Options for an Admission. */
export interface AdmissionOptions {
  /** Number of processes that share the limits on unauthenticated connections. Defaults to 1. */
  readonly processes?: number;
  /** Called if connections are closed for lack of file descriptors, at most once a minute. */
  readonly onShortage: (error: Error) => void;
  /** Called with a line for the log when a source is penalized, at most every ten seconds. */
  readonly onPenalty?: (message: string) => void;
}

/** Penalties, pending connections and queued verifications of a process; one instance per process. */
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
   * Adds a newly accepted socket to the pending connections. The socket may be destroyed during this call, and at any
   * time until it is admitted.
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
