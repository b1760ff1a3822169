/**
 * A queue for key verification. Trying many keys blocks the event loop for milliseconds, so it is done in slices that
 * use at most half of the time; the clients most likely to be honest go first.
 */

/** Maximum time to block the event loop per slice, in ms. */
const SLICE_MS = 2;

/** Priority of a task: `known` before `unknown` before `suspect`. */
export type Priority = "known" | "unknown" | "suspect";

/** A task divided into steps of microseconds. */
interface Task {
  readonly priority: () => Priority;
  /** Runs one step. Returns true if it was the last. */
  readonly step: () => boolean;
}

/**
 * Runs tasks by priority, the newest first within each: under overload, some clients are then served promptly instead
 * of all of them too late.
 */
export class VerificationQueue {
  readonly #tasks: Readonly<Record<Priority, Task[]>> = { known: [], unknown: [], suspect: [] };
  /** The started task. It is finished first, since otherwise none might ever be. */
  #current: Task | undefined;
  #scheduled = false;
  /** Earliest start of the next slice, in ms on the monotonic clock. */
  #restUntil = 0;

  /**
   * Runs a task in slices.
   *
   * @param priority - called now and before the task starts, since other clients of the source may fail in between.
   * @param step - called repeatedly while it returns undefined. Each call should take microseconds.
   * @returns the final result of `step`.
   * @throws the error that `step` throws.
   */
  run<Result>(priority: () => Priority, step: () => Result | undefined): Promise<Result> {
    return new Promise((resolve, reject) => {
      const runStep = () => {
        try {
          const result = step();
          if (result === undefined) return false;
          resolve(result);
        } catch (error) {
          reject(error);
        }
        return true;
      };
      this.#tasks[priority()].push({ priority, step: runStep });
      if (!this.#scheduled) this.#schedule();
    });
  }

  #schedule(): void {
    this.#scheduled = true;
    const rest = this.#restUntil - performance.now();
    const slice = () => this.#slice();
    if (rest > 0) setTimeout(slice, rest);
    else setImmediate(slice);
  }

  #slice(): void {
    const start = performance.now();
    let now = start;
    while (now - start < SLICE_MS) {
      this.#current ??= this.#next();
      if (this.#current === undefined) break;
      if (this.#current.step()) this.#current = undefined;
      now = performance.now();
    }
    // Time in excess of a slice was spent on other processes.
    this.#restUntil = now + Math.min(now - start, SLICE_MS);
    this.#current ??= this.#next();
    this.#scheduled = false;
    if (this.#current !== undefined) this.#schedule();
  }

  #next(): Task | undefined {
    const { known, unknown, suspect } = this.#tasks;
    for (const tasks of [known, unknown]) {
      for (let task = tasks.pop(); task !== undefined; task = tasks.pop()) {
        if (task.priority() !== "suspect") return task;
        suspect.push(task);
      }
    }
    return suspect.pop();
  }
}
