/** Targets with periodic address lookups. */
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Target } from "../../../src/daemon/target.ts";
import { parseAddress, type ResolvedAddress } from "../../../src/net/address.ts";

const address = (port: number): ResolvedAddress => ({ kind: "tcp", host: "192.0.2.1", port, family: 4 });

/** The results of the lookups, which stay pending until one is given. */
const lookups = vi.hoisted(() => [] as { resolve(addresses: unknown[]): void; reject(error: Error): void }[]);
vi.mock("../../../src/net/resolve.ts", () => ({
  resolveAddress: () => new Promise((resolve, reject) => lookups.push({ resolve, reject })),
}));

beforeEach(() => {
  lookups.length = 0;
  vi.useFakeTimers();
});
afterEach(() => void vi.useRealTimers());

function make(addresses: readonly ResolvedAddress[]) {
  const failures: boolean[] = [];
  const target = new Target(parseAddress("target.example.org:1"), addresses, (_error, first) =>
    failures.push(first),
  );
  return { target, failures };
}

/** Finishes the current lookup. */
async function finish(result: ResolvedAddress[] | Error): Promise<void> {
  const lookup = lookups.at(-1)!;
  if (result instanceof Error) lookup.reject(result);
  else lookup.resolve(result);
  await vi.advanceTimersByTimeAsync(0);
}

describe("a target", () => {
  it("has the addresses of the last successful lookup, and reports the first of several failures", async () => {
    const { target, failures } = make([address(1)]);
    target.startRefreshing(60_000);
    expect(target.addresses).toEqual([address(1)]);
    for (const [result, port] of [
      [new Error("no name server"), 1],
      [new Error("no name server"), 1],
      [[address(2)], 2],
      [new Error("no name server"), 2],
    ] as const) {
      await vi.advanceTimersByTimeAsync(60_000);
      await finish(result as ResolvedAddress[] | Error);
      expect(target.addresses).toEqual([address(port)]);
    }
    expect(failures).toEqual([true, false, true]);
    target.stop();
  });

  it("is looked up every second at least until that has succeeded", async () => {
    const { target, failures } = make([]);
    target.startRefreshing(60_000);
    for (let i = 1; i <= 3; i += 1) {
      await vi.advanceTimersByTimeAsync(999);
      expect(lookups).toHaveLength(i - 1);
      await vi.advanceTimersByTimeAsync(1);
      expect(lookups).toHaveLength(i);
      await finish(i < 3 ? new Error("no such name") : [address(1)]);
    }
    await vi.advanceTimersByTimeAsync(59_999);
    expect(lookups).toHaveLength(3);
    await vi.advanceTimersByTimeAsync(1);
    expect(lookups).toHaveLength(4);
    // The failure at the start was logged then.
    expect(failures).toEqual([false, false]);
    target.stop();
  });

  it("has one lookup at a time, however long that takes", async () => {
    const { target } = make([address(1)]);
    target.startRefreshing(10);
    await vi.advanceTimersByTimeAsync(1000);
    expect(lookups).toHaveLength(1);
    await finish([address(1)]);
    await vi.advanceTimersByTimeAsync(10);
    expect(lookups).toHaveLength(2);
    target.stop();
  });

  it("is not looked up after stop(), even if a lookup was in progress", async () => {
    for (const wait of [5, 10]) {
      const { target } = make([address(1)]);
      target.startRefreshing(10);
      await vi.advanceTimersByTimeAsync(wait);
      target.stop();
      const before = lookups.length;
      if (wait === 10) await finish([address(1)]);
      await vi.advanceTimersByTimeAsync(1000);
      expect(lookups).toHaveLength(before);
    }
  });
});
