/** The simulated clock keeps the rules of Node's timers. */
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { SimulatedClock } from "./clock.ts";

let clock: SimulatedClock;
let restore: () => void;

beforeEach(() => {
  clock = new SimulatedClock(1000.5);
  restore = clock.install();
});
afterEach(() => restore());

/** Moves the clock and returns what the timers that are due have pushed. */
function advance(to: number, events: string[]): string[] {
  clock.now = to;
  for (let action = clock.takeDueTimer(); action !== undefined; action = clock.takeDueTimer()) action();
  return events.splice(0);
}

describe("the simulated clock", () => {
  it("runs timers in the order of their times, and those of the same time in the order of their start", () => {
    const events: string[] = [];
    setTimeout(() => events.push("late"), 10);
    setTimeout((text: string) => events.push(text), 5, "first");
    setTimeout(() => events.push("second"), 5);
    expect(advance(1004.9, events)).toEqual([]);
    expect(advance(1005, events)).toEqual(["first", "second"]);
    expect(advance(2000, events)).toEqual(["late"]);
    expect(clock.timers.size).toBe(0);
  });

  it("runs nothing that was cleared, also if another timer of the same time clears it", () => {
    const events: string[] = [];
    const cleared = setTimeout(() => events.push("cleared"), 5);
    clearTimeout(cleared);
    setTimeout(() => clearTimeout(next), 6);
    const next = setTimeout(() => events.push("next"), 6);
    expect(advance(2000, events)).toEqual([]);
    expect(clock.timers.size).toBe(0);
  });

  it("repeats intervals, and starts timers again", () => {
    const events: string[] = [];
    const interval = setInterval(() => events.push("interval"), 10);
    const timer = setTimeout(() => events.push("timer"), 15);
    expect(advance(1010, events)).toEqual(["interval"]);
    timer.refresh();
    expect(advance(1020, events)).toEqual(["interval"]);
    expect(advance(1025, events)).toEqual(["timer"]);
    clearInterval(interval);
    expect(advance(5000, events)).toEqual([]);
  });

  it("runs the immediates of one iteration, and keeps those that they add for the next", () => {
    const events: string[] = [];
    setImmediate(() => {
      events.push("first");
      clearImmediate(second);
      setImmediate(() => events.push("next iteration"));
    });
    const second = setImmediate(() => events.push("second"));
    for (const action of clock.takeImmediates()) action();
    expect(events).toEqual(["first"]);
    for (const action of clock.takeImmediates()) action();
    expect(events).toEqual(["first", "next iteration"]);
    expect(clock.hasImmediates).toBe(false);
  });

  it("is what the global clocks show, until it is removed", () => {
    const [monotonic, wall] = [performance.now(), Date.now()];
    clock.now += 5;
    expect([performance.now() - monotonic, Date.now() - wall]).toEqual([5, 5]);
    restore();
    expect(performance.now()).not.toBe(clock.now);
  });
});
