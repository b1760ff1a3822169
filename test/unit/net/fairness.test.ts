/** Read budgets of connections that share an event loop. */
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { MAX_READ_BYTES, SHORT_READ_BYTES } from "../../../src/net/fairness.ts";

const MIB = 1024 * 1024;

beforeEach(() => {
  // The module has state for the process.
  vi.resetModules();
  vi.useFakeTimers({ toFake: ["performance", "setImmediate"] });
  vi.advanceTimersByTime(1_000_000);
});
afterEach(() => void vi.useRealTimers());

/** Returns the module in its initial state, and a function that creates a source of a connection of its own. */
async function load() {
  const fairness = await import("../../../src/net/fairness.ts");
  return { ...fairness, source: (connection: object = {}) => new fairness.ReadBudget(connection) };
}

describe("the budget of a source", () => {
  it("is used up after one long read, and renewed for the next iteration", async () => {
    const { source } = await load();
    const one = source();
    expect(one.take(MAX_READ_BYTES / 2)).toBe(true);
    expect(one.take(MAX_READ_BYTES / 2)).toBe(false);
    one.begin();
    expect(one.take(MAX_READ_BYTES - 1)).toBe(true);
    expect(one.take(1)).toBe(false);
  });

  it("is small while another connection is interactive, and for 20 ms afterwards", async () => {
    const { nextReadSize, source } = await load();
    const [bulk, typist] = [source(), source()];
    const read = () => {
      bulk.begin();
      return bulk.take(SHORT_READ_BYTES);
    };
    expect(read()).toBe(true);
    expect(nextReadSize()).toBe(MAX_READ_BYTES);
    typist.take(10);
    expect(read()).toBe(false);
    expect(nextReadSize()).toBe(SHORT_READ_BYTES);
    vi.advanceTimersByTime(19);
    expect(read()).toBe(false);
    vi.advanceTimersByTime(1);
    expect(read()).toBe(true);
    expect(nextReadSize()).toBe(MAX_READ_BYTES);
  });

  it("is not reduced by the other direction of its own connection", async () => {
    const { source } = await load();
    const connection = {};
    const [download, requests] = [source(connection), source(connection)];
    requests.take(10);
    expect(download.take(SHORT_READ_BYTES)).toBe(true);
  });

  it("is not reduced by a connection that makes a short read now and then", async () => {
    const { source } = await load();
    const [bulk, other] = [source(), source()];
    for (let i = 0; i < 20; i += 1) other.take(MAX_READ_BYTES);
    other.take(1);
    expect(bulk.take(SHORT_READ_BYTES)).toBe(true);
  });
});

describe("long reads", () => {
  /** Makes a read of a source and returns the maximum size of its next one. */
  const sizeAfter = (
    { nextReadSize }: { nextReadSize: () => number },
    source: { begin(): void; take(length: number): boolean },
    length = SHORT_READ_BYTES,
  ) => {
    source.begin();
    source.take(length);
    return nextReadSize();
  };

  it("are for 16 sources at a time, until one of them ends", async () => {
    const fairness = await load();
    const first = Array.from({ length: 16 }, () => fairness.source());
    for (const one of first) expect(sizeAfter(fairness, one)).toBe(MAX_READ_BYTES);
    const next = fairness.source();
    expect(sizeAfter(fairness, next)).toBe(SHORT_READ_BYTES);
    first[3]!.end();
    // Ending twice returns one credit.
    first[3]!.end();
    expect(sizeAfter(fairness, next)).toBe(MAX_READ_BYTES);
    expect(sizeAfter(fairness, fairness.source())).toBe(SHORT_READ_BYTES);
  });

  it("are not used up by sources with short reads", async () => {
    const fairness = await load();
    for (let i = 0; i < 100; i += 1) {
      expect(sizeAfter(fairness, fairness.source(), SHORT_READ_BYTES - 1)).toBe(SHORT_READ_BYTES);
    }
    expect(sizeAfter(fairness, fairness.source())).toBe(MAX_READ_BYTES);
  });

  it("are for any number of sources whose sink has accepted 8 MiB", async () => {
    const fairness = await load();
    const sources = Array.from({ length: 20 }, () => fairness.source());
    const sizes = () => sources.map((one) => sizeAfter(fairness, one));
    expect(sizes().filter((size) => size === MAX_READ_BYTES)).toHaveLength(16);
    for (const one of sources) sizeAfter(fairness, one, 8 * MIB);
    expect(new Set(sizes())).toEqual(new Set([MAX_READ_BYTES]));
    // The credits are free again.
    expect(sizeAfter(fairness, fairness.source())).toBe(MAX_READ_BYTES);
  });

  it("end when a sink stalls for a second", async () => {
    const fairness = await load();
    const stalling = fairness.source();
    sizeAfter(fairness, stalling, 8 * MIB);
    for (let i = 0; i < 16; i += 1) sizeAfter(fairness, fairness.source());
    vi.advanceTimersByTime(999);
    expect(sizeAfter(fairness, stalling)).toBe(MAX_READ_BYTES);
    vi.advanceTimersByTime(1000);
    expect(sizeAfter(fairness, stalling)).toBe(SHORT_READ_BYTES);
  });
});

describe("onNextIteration()", () => {
  it("resumes all that wait in order, and those that wait again in the iteration after", async () => {
    const { onNextIteration } = await load();
    const calls: string[] = [];
    onNextIteration(() => {
      calls.push("first");
      onNextIteration(() => calls.push("first again"));
    });
    onNextIteration(() => calls.push("second"));
    expect(calls).toEqual([]);
    vi.advanceTimersToNextTimer();
    expect(calls).toEqual(["first", "second"]);
    vi.advanceTimersToNextTimer();
    expect(calls).toEqual(["first", "second", "first again"]);
  });
});
