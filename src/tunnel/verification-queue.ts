/**
 * Trying many keys takes milliseconds, in which the event loop serves nobody. So it is done in slices, and never for more
 * than half of the time; the clients that are most likely to be honest go first.
 */

/** How long the loop may be kept at a time, ms. */
const SLICE_MS = 2;

/** Which go first: `known` before `unknown` before `suspect`. */
export type Priority = "known" | "unknown" | "suspect";

/** A task, in steps that take microseconds. */
interface Task {
  readonly priority: () => Priority;
  /** Returns true if it was the last step. */
  readonly step: () => boolean;
}

/**
 * Runs tasks, of each priority the newest first: when there are more than can be done, that serves some clients at once
 * instead of all of them too late.
 */
export class VerificationQueue {
  readonly #tasks: Readonly<Record<Priority, Task[]>> = { known: [], unknown: [], suspect: [] };
  /** The task that was begun; it is finished first, or none might ever be. */
  #current: Task | undefined;
  #scheduled = false;
  /** When the next slice may begin, ms on the monotonic clock. */
  #restUntil = 0;

  /**
   * Runs a task in slices.
   *
   * @param priority called now and when it is the task's turn: others of its source may have failed in between.
   * @param step called again and again while it returns undefined. Each call should take microseconds.
   * @returns what `step` returned at last.
   * @throws what `step` throws.
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
    // What is beyond a slice is time in which the system ran other processes.
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
