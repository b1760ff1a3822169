/**
 * Trying many keys takes milliseconds, in which the event loop serves nobody. So it is done in slices, and never for more
 * than half of the time; the clients that are most likely to be honest go first.
 */

/** How long the loop may be kept at a time, ms. */
const SLICE_MS = 2;

/** Which go first: `known` before `unknown` before `suspect`. */
export type Priority = "known" | "unknown" | "suspect";

/** A task, in steps that take microseconds. Returns true from its last one. */
type Task = () => boolean;

/** Runs tasks, in their order within each priority. */
export class VerificationQueue {
  readonly #tasks: Readonly<Record<Priority, Set<Task>>> = {
    known: new Set(),
    unknown: new Set(),
    suspect: new Set(),
  };
  #scheduled = false;
  /** When the next slice may begin, ms on the monotonic clock. */
  #restUntil = 0;

  /**
   * Runs a task in slices.
   *
   * @param step called again and again while it returns undefined. Each call should take microseconds.
   * @returns what `step` returned at last.
   * @throws what `step` throws.
   */
  run<Result>(priority: Priority, step: () => Result | undefined): Promise<Result> {
    return new Promise((resolve, reject) => {
      this.#tasks[priority].add(() => {
        try {
          const result = step();
          if (result === undefined) return false;
          resolve(result);
        } catch (error) {
          reject(error);
        }
        return true;
      });
      this.#schedule();
    });
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    const rest = this.#restUntil - performance.now();
    const slice = () => this.#slice();
    if (rest > 0) setTimeout(slice, rest);
    else setImmediate(slice);
  }

  #slice(): void {
    this.#scheduled = false;
    const start = performance.now();
    let now = start;
    for (let next = this.#next(); next !== undefined && now - start < SLICE_MS; next = this.#next()) {
      const [tasks, task] = next;
      if (task()) tasks.delete(task);
      now = performance.now();
    }
    this.#restUntil = now + (now - start);
    if (this.#next() !== undefined) this.#schedule();
  }

  #next(): [Set<Task>, Task] | undefined {
    const { known, unknown, suspect } = this.#tasks;
    for (const tasks of [known, unknown, suspect]) {
      const [task] = tasks;
      if (task !== undefined) return [tasks, task];
    }
    return undefined;
  }
}
