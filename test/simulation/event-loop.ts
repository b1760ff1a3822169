/**
 * The event loop of the process under test, with the phases of libuv: timers, then what is ready of its sockets, in an
 * order that the seed decides, then immediates, then closed handles. Its clock moves between iterations only.
 *
 * It is a generator: after each callback into JavaScript it yields, and the caller lets a task of the real event loop
 * pass, so that Node runs its queues of ticks and promises as it does after each callback of its own.
 */
import type { Agenda } from "./agenda.ts";
import type { SimulatedClock } from "./clock.ts";
import type { Random } from "./random.ts";

/** A handle that the loop polls. */
export interface Watcher {
  /** True if there is something to do. */
  readonly isReady: boolean;
  /** Does it; yields after each callback into JavaScript. */
  handleEvents(): Generator<undefined>;
}

/** Time that an iteration takes, in ms. */
const ITERATION_MS = 1 / 64;

export class EventLoop {
  readonly #clock: SimulatedClock;
  readonly #agenda: Agenda;
  readonly #random: Random;
  /** Probability that an iteration takes long, and how long it takes at most, in ms. */
  readonly #stalls: { readonly probability: number; readonly max: number };
  /** Handles that may be ready. */
  readonly #watched = new Set<Watcher>();
  #posted: (() => void)[] = [];
  #closing: Generator<undefined>[] = [];

  constructor(
    clock: SimulatedClock,
    agenda: Agenda,
    random: Random,
    stalls: { readonly probability: number; readonly max: number },
  ) {
    this.#clock = clock;
    this.#agenda = agenda;
    this.#random = random;
    this.#stalls = stalls;
  }

  /** Called after each iteration. */
  onIteration: () => void = () => {};

  /** Polls a handle in the next iteration, and as long as it is ready. */
  watch(watcher: Watcher): void {
    this.#watched.add(watcher);
  }

  unwatch(watcher: Watcher): void {
    this.#watched.delete(watcher);
  }

  /** Calls `callback` when the loop polls: for what the kernel or a thread has completed. */
  post(callback: () => void): void {
    this.#posted.push(callback);
  }

  /** Runs the callbacks of a closed handle in the last phase of this iteration. */
  close(callbacks: Generator<undefined>): void {
    this.#closing.push(callbacks);
  }

  /**
   * Runs until nothing is left to do before a time.
   *
   * @param until - in ms on the clock.
   */
  *run(until: number): Generator<undefined> {
    const clock = this.#clock;
    for (;;) {
      if (this.#hasWork()) {
        clock.now += ITERATION_MS;
        if (this.#random.chance(this.#stalls.probability))
          clock.now += this.#random.between(1, this.#stalls.max);
      } else {
        const next = Math.min(this.#agenda.nextTime(), clock.timers.nextTime());
        if (next > until) return;
        clock.now = Math.max(clock.now, next);
      }
      for (
        let action = this.#agenda.take(clock.now);
        action !== undefined;
        action = this.#agenda.take(clock.now)
      ) {
        action();
      }
      yield* this.#iterate();
      this.onIteration();
    }
  }

  #hasWork(): boolean {
    if (this.#posted.length > 0 || this.#closing.length > 0 || this.#clock.hasImmediates) return true;
    for (const watcher of this.#watched) {
      if (watcher.isReady) return true;
      this.#watched.delete(watcher);
    }
    return false;
  }

  *#iterate(): Generator<undefined> {
    const clock = this.#clock;
    for (let action = clock.takeDueTimer(); action !== undefined; action = clock.takeDueTimer()) {
      action();
      yield;
    }
    const posted = this.#posted;
    this.#posted = [];
    for (const callback of posted) {
      callback();
      yield;
    }
    const ready = [...this.#watched].filter((watcher) => watcher.isReady);
    if (ready.length > 1) this.#random.shuffle(ready);
    for (const watcher of ready) yield* watcher.handleEvents();
    for (const action of clock.takeImmediates()) {
      action();
      yield;
    }
    const closing = this.#closing;
    this.#closing = [];
    // As in libuv, the handle closed last comes first.
    for (const callbacks of closing.reverse()) yield* callbacks;
  }
}
