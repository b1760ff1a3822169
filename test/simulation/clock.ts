/**
 * A clock that stands still while code runs. It replaces the global timers, immediates and clocks, and the simulated
 * event loop moves it.
 *
 * As in Node, a timer is due when the whole milliseconds of the clock have reached its time, so it may expire up to a
 * millisecond early by `performance.now()`.
 */
import { Agenda, type Appointment } from "./agenda.ts";

type Callback = (...args: unknown[]) => void;

/** What the wall clock shows at the start, in ms since 1970. */
export const EPOCH_MS = 1_800_000_000_000;

/** What Node's timers and immediates have for keeping the process alive, which a world does not depend on. */
class Reference {
  ref(): this {
    return this;
  }

  unref(): this {
    return this;
  }

  hasRef(): boolean {
    return true;
  }
}

class SimulatedTimer extends Reference {
  readonly #clock: SimulatedClock;
  readonly #delay: number;
  readonly #callback: () => void;
  readonly #repeats: boolean;
  #appointment: Appointment | undefined;

  constructor(clock: SimulatedClock, delay: number, repeats: boolean, callback: () => void) {
    super();
    this.#clock = clock;
    // As in Node: delays that are too long, too short or not numbers are 1.
    this.#delay = delay >= 1 && delay <= 2 ** 31 - 1 ? Math.trunc(delay) : 1;
    this.#repeats = repeats;
    this.#callback = callback;
    this.refresh();
  }

  refresh(): this {
    this.close();
    this.#appointment = this.#clock.timers.add(Math.floor(this.#clock.now) + this.#delay, () => {
      this.#appointment = undefined;
      if (this.#repeats) this.refresh();
      this.#callback();
    });
    return this;
  }

  close(): this {
    if (this.#appointment !== undefined) this.#clock.timers.cancel(this.#appointment);
    this.#appointment = undefined;
    return this;
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

class SimulatedImmediate extends Reference {
  /** Undefined once it is cleared or has run. */
  action: (() => void) | undefined;

  constructor(action: () => void) {
    super();
    this.action = action;
  }
}

/** The time of a world, its timers and its immediates. */
export class SimulatedClock {
  /** The monotonic time, in ms. */
  now: number;
  readonly start: number;
  readonly timers = new Agenda();
  #immediates: SimulatedImmediate[] = [];

  /** @param start - the monotonic time at the start, in ms. */
  constructor(start: number) {
    this.start = start;
    this.now = start;
  }

  get hasImmediates(): boolean {
    return this.#immediates.some(({ action }) => action !== undefined);
  }

  /** Returns the action of a timer that is due, and removes the timer; undefined if none is. */
  takeDueTimer(): (() => void) | undefined {
    return this.timers.take(Math.floor(this.now));
  }

  /** Yields the actions of the immediates of this event-loop iteration; those added meanwhile belong to the next. */
  *takeImmediates(): Generator<() => void> {
    const batch = this.#immediates;
    this.#immediates = [];
    for (const immediate of batch) {
      const { action } = immediate;
      immediate.action = undefined;
      if (action !== undefined) yield action;
    }
  }

  /**
   * Replaces the global functions.
   *
   * @returns a function that restores them.
   */
  install(): () => void {
    const startTimer =
      (repeats: boolean) =>
      (callback: Callback, delay?: number, ...args: unknown[]) =>
        new SimulatedTimer(this, Number(delay), repeats, () => callback(...args));
    const clearTimer = (timer: unknown) => {
      if (timer instanceof SimulatedTimer) timer.close();
    };
    const functions: Record<string, unknown> = {
      setTimeout: startTimer(false),
      setInterval: startTimer(true),
      clearTimeout: clearTimer,
      clearInterval: clearTimer,
      setImmediate: (callback: Callback, ...args: unknown[]) => {
        const immediate = new SimulatedImmediate(() => callback(...args));
        this.#immediates.push(immediate);
        return immediate;
      },
      clearImmediate: (immediate: unknown) => {
        if (immediate instanceof SimulatedImmediate) immediate.action = undefined;
      },
    };
    const original = Object.fromEntries(
      Object.keys(functions).map((name) => [name, (globalThis as Record<string, unknown>)[name]]),
    );
    const wallClock = Date.now;
    Object.assign(globalThis, functions);
    Date.now = () => EPOCH_MS + Math.floor(this.now - this.start);
    Object.defineProperty(performance, "now", { configurable: true, value: () => this.now });
    return () => {
      Object.assign(globalThis, original);
      Date.now = wallClock;
      // The method of the prototype is visible again.
      Reflect.deleteProperty(performance, "now");
    };
  }
}
