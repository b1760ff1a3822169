/**
 * The steps of a world: a running hash of all of them, by which two runs are compared, and their text, which costs more
 * and is kept only when it is to be shown.
 */
import type { SimulatedClock } from "./clock.ts";

export class Trace {
  readonly #clock: SimulatedClock;
  /** The last steps as text; undefined unless they are kept. */
  readonly #lines: string[] | undefined;
  #hash = 0x811c_9dc5;
  steps = 0;

  constructor(clock: SimulatedClock, keepsText: boolean) {
    this.#clock = clock;
    this.#lines = keepsText ? [] : undefined;
  }

  /** Records a step: what happened, to what, and how much. */
  record(kind: string, id: number | string = 0, amount: number | string = ""): void {
    const { now, start } = this.#clock;
    this.steps += 1;
    this.#add(Math.round((now - start) * 1024));
    this.#addText(kind);
    if (typeof id === "number") this.#add(id);
    else this.#addText(id);
    if (typeof amount === "number") this.#add(amount);
    else this.#addText(amount);
    this.#lines?.push(`${(now - start).toFixed(3).padStart(10)} ${kind} ${id} ${amount}`.trimEnd());
  }

  get hash(): string {
    return (this.#hash >>> 0).toString(16).padStart(8, "0");
  }

  get lines(): readonly string[] {
    return this.#lines ?? [];
  }

  #add(value: number): void {
    this.#hash = Math.imul(this.#hash ^ (value | 0), 0x0100_0193);
    this.#hash ^= this.#hash >>> 15;
  }

  #addText(text: string): void {
    for (let index = 0; index < text.length; index += 1) this.#add(text.charCodeAt(index));
  }
}
