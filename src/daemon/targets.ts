/** Several targets for one tunnel: the first that works is taken, and one that has failed is left alone for a while. */
import { setTimeout as wait } from "node:timers/promises";
import { ConnectError } from "../net/connect-error.ts";
import { HandshakeError } from "../protocol/protocol-error.ts";
import type { Target } from "./target.ts";

/** How long a target that has failed comes after all others, ms. */
const COOL_DOWN = 30_000;

/** How long a probe waits for the connection that it tries, ms: who asks for health waits a second. */
const PROBE_TIMEOUT_MS = 500;

/** Probes connect at most this often, ms: whoever may ask must not have the target flooded. */
const PROBE_INTERVAL_MS = 1000;

/** Targets in order of preference. */
export class Targets {
  readonly #targets: readonly Target[];
  readonly #coolUntil = new Map<Target, number>();
  /** False since the last attempt failed at every target. */
  #reachable = true;
  /** The connection of the last probe, for all who ask until another one may be tried. */
  #probing: Promise<void> | undefined;

  /** @param targets at least one. */
  constructor(targets: readonly Target[]) {
    this.#targets = targets;
  }

  /** The target that is preferred, as it was written. */
  get name(): string {
    return this.#targets[0]!.address.text;
  }

  /**
   * Finds out whether a target can be reached, by connecting if the last attempt failed: who asks may be the one who
   * sends no client as long as the answer is no. It comes within half a second: a target that takes longer is not
   * reachable until it has answered.
   *
   * @param connect connects and closes again.
   */
  async probe(connect: (target: Target) => Promise<void>): Promise<boolean> {
    if (this.#reachable) return true;
    this.#probing ??= this.#startProbe(connect);
    await Promise.race([this.#probing, wait(PROBE_TIMEOUT_MS, undefined, { ref: false })]);
    return this.#reachable;
  }

  #startProbe(connect: (target: Target) => Promise<void>): Promise<void> {
    const attempt = this.attempt(connect).catch(() => {});
    void Promise.all([attempt, wait(PROBE_INTERVAL_MS, undefined, { ref: false })]).then(() => {
      this.#probing = undefined;
    });
    return attempt;
  }

  /**
   * Connects to the first target that lets us.
   *
   * @param connect throws ConnectError or HandshakeError to have the next one tried; anything else ends the attempt.
   * @throws what `connect` threw last.
   */
  async attempt<Result>(connect: (target: Target) => Promise<Result>): Promise<Result> {
    let failure: unknown;
    for (const target of this.#order()) {
      try {
        const result = await connect(target);
        this.#coolUntil.delete(target);
        this.#reachable = true;
        return result;
      } catch (error) {
        if (!(error instanceof ConnectError || error instanceof HandshakeError)) throw error;
        this.#coolUntil.set(target, performance.now() + COOL_DOWN);
        failure = error;
      }
    }
    this.#reachable = false;
    throw failure;
  }

  /** Looks each of them up again and again; `interval` in ms. */
  refreshEvery(interval: number): void {
    for (const target of this.#targets) target.refreshEvery(interval);
  }

  /** Looks up no more. */
  stop(): void {
    for (const target of this.#targets) target.stop();
  }

  /** Those that did not fail of late, then the others. */
  #order(): readonly Target[] {
    const now = performance.now();
    const cooling = (target: Target) => (this.#coolUntil.get(target) ?? 0) > now;
    return [...this.#targets.filter((target) => !cooling(target)), ...this.#targets.filter(cooling)];
  }
}
