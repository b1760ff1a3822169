/** Actions ordered by time; those of the same time run in the order in which they were added. */

/** An action that is to be taken at a time. */
export class Appointment {
  readonly time: number;
  readonly number: number;
  /** Undefined once it is cancelled or taken. */
  action: (() => void) | undefined;

  constructor(time: number, number: number, action: () => void) {
    this.time = time;
    this.number = number;
    this.action = action;
  }

  isBefore(other: Appointment): boolean {
    return this.time < other.time || (this.time === other.time && this.number < other.number);
  }
}

/** A binary heap of appointments. */
export class Agenda {
  readonly #heap: Appointment[] = [];
  #count = 0;
  #size = 0;

  /** Number of appointments that are neither taken nor cancelled. */
  get size(): number {
    return this.#size;
  }

  add(time: number, action: () => void): Appointment {
    this.#count += 1;
    this.#size += 1;
    const added = new Appointment(time, this.#count, action);
    const heap = this.#heap;
    let index = heap.length;
    heap.push(added);
    while (index > 0) {
      const parent = (index - 1) >> 1;
      if (!added.isBefore(heap[parent]!)) break;
      heap[index] = heap[parent]!;
      index = parent;
    }
    heap[index] = added;
    return added;
  }

  cancel(appointment: Appointment): void {
    if (appointment.action === undefined) return;
    appointment.action = undefined;
    this.#size -= 1;
  }

  /** Returns the time of the next appointment; `Infinity` if there is none. */
  nextTime(): number {
    const heap = this.#heap;
    while (heap.length > 0 && heap[0]!.action === undefined) this.#removeFirst();
    return heap[0]?.time ?? Number.POSITIVE_INFINITY;
  }

  /** Removes the next appointment if its time is not after `now`, and returns its action. */
  take(now: number): (() => void) | undefined {
    if (this.nextTime() > now) return undefined;
    const first = this.#heap[0]!;
    this.#removeFirst();
    const { action } = first;
    first.action = undefined;
    this.#size -= 1;
    return action;
  }

  #removeFirst(): void {
    const heap = this.#heap;
    const last = heap.pop()!;
    if (heap.length === 0) return;
    let index = 0;
    for (;;) {
      let child = 2 * index + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && heap[child + 1]!.isBefore(heap[child]!)) child += 1;
      if (!heap[child]!.isBefore(last)) break;
      heap[index] = heap[child]!;
      index = child;
    }
    heap[index] = last;
  }
}
