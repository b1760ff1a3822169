/** Timers for timeouts and for points in time. */
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { callAt, startArrivalTimeout, startTimeout } from "../../../src/net/timers.ts";
import { socketPair } from "../../support/pairs.ts";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

const DAY_MS = 24 * 3600 * 1000;

describe("a timeout", () => {
  it("expires once after its delay, unless it is cancelled", () => {
    const expire = vi.fn();
    startTimeout(1000, expire);
    startTimeout(1000, () => expect.unreachable())();
    vi.advanceTimersByTime(999);
    expect(expire).not.toHaveBeenCalled();
    vi.advanceTimersByTime(10_000);
    expect(expire).toHaveBeenCalledOnce();
  });

  it("never expires if it is infinite, and does not expire at once if it is too long for Node", () => {
    startTimeout(Number.POSITIVE_INFINITY, () => expect.unreachable())();
    expect(vi.getTimerCount()).toBe(0);
    const expire = vi.fn();
    startTimeout(1000 * DAY_MS, expire);
    vi.advanceTimersByTime(24 * DAY_MS);
    expect(expire).not.toHaveBeenCalled();
    vi.advanceTimersByTime(DAY_MS);
    expect(expire).toHaveBeenCalledOnce();
  });

  it("for data that arrives does not expire if they came in time and the event loop was late", async () => {
    vi.useRealTimers();
    const { socket, peer } = await socketPair();
    socket.resume();
    await new Promise(setImmediate);
    let expired = false;
    const cancel = startArrivalTimeout(1, () => {
      expired = true;
    });
    const arrived = new Promise<boolean>((resolve) => {
      socket.once("data", () => {
        cancel();
        resolve(expired);
      });
    });
    peer.socket.write("in time");
    for (const start = performance.now(); performance.now() < start + 20; );
    expect(await arrived).toBe(false);
    await new Promise(setImmediate);
    expect(expired).toBe(false);
  });

  it("for data that does not arrive expires", async () => {
    const expire = vi.fn();
    startArrivalTimeout(1000, expire);
    await vi.advanceTimersByTimeAsync(999);
    expect(expire).not.toHaveBeenCalled();
    await vi.advanceTimersByTimeAsync(2);
    expect(expire).toHaveBeenCalledOnce();
  });
});

describe("callAt()", () => {
  it("calls at that time, not before, also if the clock is set meanwhile", () => {
    const action = vi.fn();
    const start = Date.now();
    callAt(start + DAY_MS, action);
    vi.advanceTimersByTime(3600_000);
    expect(action).not.toHaveBeenCalled();
    vi.setSystemTime(start + DAY_MS - 2000);
    vi.advanceTimersByTime(1000);
    expect(action).not.toHaveBeenCalled();
    vi.advanceTimersByTime(10_000);
    expect(action).toHaveBeenCalledOnce();
  });

  it("calls later if the clock is set back", () => {
    const action = vi.fn();
    const start = Date.now();
    callAt(start + 10_000, action);
    vi.setSystemTime(start - 3600_000);
    vi.advanceTimersByTime(60_000);
    expect(action).not.toHaveBeenCalled();
    vi.advanceTimersByTime(3600_000);
    expect(action).toHaveBeenCalledOnce();
  });

  it("calls soon, but not immediately, if the time has passed, unless it is cancelled", () => {
    const action = vi.fn();
    callAt(Date.now() - 1, action);
    callAt(Date.now() - 1, () => expect.unreachable())();
    callAt(Date.now() + 60_000, () => expect.unreachable())();
    expect(action).not.toHaveBeenCalled();
    vi.advanceTimersByTime(100_000);
    expect(action).toHaveBeenCalledOnce();
  });
});
