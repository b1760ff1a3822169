/** The targets of a tunnel: the first that works is used, and one that failed is tried last for a while. */
import { ConnectError } from "../net/connect-error.ts";
import { startTimeout } from "../net/timers.ts";
import { HandshakeError } from "../protocol/protocol-error.ts";
import type { Target } from "./target.ts";

/** Time for which a target that failed is tried after all others, in ms. */
const COOLDOWN_MS = 30_000;

/** Maximum time a probe waits for its connection, in ms; health checks typically time out after a second. */
const PROBE_TIMEOUT_MS = 500;

/** Minimum interval between probe connections, in ms, so that status requests cannot flood the target. */
const PROBE_INTERVAL_MS = 1000;

/** A list of targets in order of preference. */
export class Targets {
  readonly #targets: readonly Target[];
  readonly #coolUntil = new Map<Target, number>();
  /** False if the last attempt failed at every target. */
  #reachable = true;
  /** The current probe, shared by all callers until the next one may start. */
  #currentProbe: Promise<void> | undefined;

  /** @param targets - at least one. */
  constructor(targets: readonly Target[]) {
    this.#targets = targets;
  }

  /** The preferred target, as configured. */
  get name(): string {
    return this.#targets[0]!.address.text;
  }

  /**
   * Resolves with whether a target is reachable, within half a second. If the last attempt failed, it connects: a load
   * balancer sends no clients while the result is false, so no other attempt would be made. A slower target counts as
   * unreachable until it has answered.
   *
   * @param connect - opens a connection and closes it.
   */
  async probe(connect: (target: Target) => Promise<void>): Promise<boolean> {
    if (this.#reachable) return true;
    this.#currentProbe ??= this.#startProbe(connect);
    await Promise.race([this.#currentProbe, wait(PROBE_TIMEOUT_MS)]);
    return this.#reachable;
  }

  #startProbe(connect: (target: Target) => Promise<void>): Promise<void> {
    const attempt = this.attempt(connect).catch(() => {});
    void Promise.all([attempt, wait(PROBE_INTERVAL_MS)]).then(() => {
      this.#currentProbe = undefined;
    });
    return attempt;
  }

  /**
   * Connects to the first target that accepts the connection.
   *
   * @param connect - on ConnectError or HandshakeError, the next target is tried; any other error is rethrown.
   * @throws the last error of `connect`.
   */
  async attempt<Result>(connect: (target: Target) => Promise<Result>): Promise<Result> {
    let failure: unknown;
    for (const target of this.#ordered()) {
      try {
        const result = await connect(target);
        this.#coolUntil.delete(target);
        this.#reachable = true;
        return result;
      } catch (error) {
        if (!(error instanceof ConnectError || error instanceof HandshakeError)) throw error;
        this.#coolUntil.set(target, performance.now() + COOLDOWN_MS);
        failure = error;
      }
    }
    this.#reachable = false;
    throw failure;
  }

  /** Looks up each target periodically; `interval` is in ms. */
  startRefreshing(interval: number): void {
    for (const target of this.#targets) target.startRefreshing(interval);
  }

  /** Stops the periodic lookups. */
  stop(): void {
    for (const target of this.#targets) target.stop();
  }

  /** Returns the targets that did not fail recently, then the others. */
  #ordered(): readonly Target[] {
    if (this.#coolUntil.size === 0) return this.#targets;
    const now = performance.now();
    const cooling = (target: Target) => (this.#coolUntil.get(target) ?? 0) > now;
    return [...this.#targets.filter((target) => !cooling(target)), ...this.#targets.filter(cooling)];
  }
}

function wait(delay: number): Promise<void> {
  return new Promise((resolve) => void startTimeout(delay, resolve));
}
