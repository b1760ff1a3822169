/** The limit on file descriptors. */
import { afterEach, describe, expect, it, vi } from "vitest";
import { DescriptorBudget, descriptorLimit } from "../../../src/net/descriptors.ts";

afterEach(() => void vi.useRealTimers());

describe("the descriptors of a process", () => {
  it("are counted against their limit, of which some are reserved", () => {
    const budget = new DescriptorBudget(() => {});
    expect(budget.usable).toBeLessThan(descriptorLimit());
    expect(budget.has(budget.usable)).toBe(true);
    expect(budget.has(budget.usable + 1)).toBe(false);
    budget.take(3);
    expect(budget.has(budget.usable - 3)).toBe(true);
    expect(budget.has(budget.usable - 2)).toBe(false);
    budget.release(2);
    expect(budget.has(budget.usable - 1)).toBe(true);
  });

  it("are reported to run out once a minute at most, with the limit", () => {
    vi.useFakeTimers({ toFake: ["performance"] });
    const warnings: string[] = [];
    const budget = new DescriptorBudget(({ message }) => warnings.push(message));
    for (const wait of [0, 0, 59_999, 1, 59_999]) {
      vi.advanceTimersByTime(wait);
      budget.reportShortage();
    }
    expect(warnings).toHaveLength(2);
    expect(warnings[0]).toBe(`file descriptors run out: the limit is ${descriptorLimit()} (ulimit -n)`);
  });
});
