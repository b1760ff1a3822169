import { randomBytes } from "node:crypto";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Secret } from "../../../src/protocol/secret.ts";
import { Penalties } from "../../../src/tunnel/penalties.ts";

const KEYS = 1000;
const secret = Secret.fromKeyFile(randomBytes(32));
let reported: string[];
let penalties: Penalties;

beforeEach(() => {
  vi.useFakeTimers({ toFake: ["performance"] });
  reported = [];
  penalties = new Penalties((source, duration) => reported.push(`${source} ${Math.round(duration)}`));
});
afterEach(() => void vi.useRealTimers());

const fail = (source: string, times: number) => {
  for (let i = 0; i < times; i += 1) penalties.recordFailure(source, KEYS);
};

describe("penalties", () => {
  it("apply to one source after several failures, and expire", () => {
    fail("a", 4);
    expect(penalties.has("a")).toBe(false);
    expect(penalties.isSuspect("a")).toBe(true);
    fail("a", 1);
    expect(penalties.has("a")).toBe(true);
    expect(penalties.has("b")).toBe(false);
    expect(reported).toEqual(["a 5100"]);
    vi.advanceTimersByTime(5099);
    expect(penalties.has("a")).toBe(true);
    vi.advanceTimersByTime(2);
    expect(penalties.has("a")).toBe(false);
    expect(penalties.isSuspect("a")).toBe(true);
    vi.advanceTimersByTime(5 * 60_000);
    expect(penalties.isSuspect("a")).toBe(false);
  });

  it("do not apply to a client that retries every second, nor to many failures against a single key", () => {
    for (let i = 0; i < 60; i += 1) {
      fail("a", 1);
      vi.advanceTimersByTime(1100);
    }
    for (let i = 0; i < 100; i += 1) penalties.recordFailure("b", 1);
    expect(reported).toEqual([]);
  });

  it("become longer with each repetition, up to a maximum, and are forgotten", () => {
    const failuresUntilPenalty = () => {
      let count = 0;
      for (; !penalties.has("a"); count += 1) fail("a", 1);
      vi.advanceTimersByTime(15_001);
      return count;
    };
    expect([1, 2, 3, 4, 5, 6].map(failuresUntilPenalty)).toEqual([5, 3, 2, 1, 1, 1]);
    expect(reported.slice(-2)).toEqual(["a 15000", "a 15000"]);
    vi.advanceTimersByTime(5 * 60_000);
    expect(failuresUntilPenalty()).toBe(5);
  });

  it("end when a client from the source succeeds, whose secret becomes the first to be tried", () => {
    fail("a", 5);
    penalties.recordSuccess("a", secret);
    expect(penalties.has("a")).toBe(false);
    const other = Secret.fromKeyFile(randomBytes(32));
    penalties.recordSuccess("a", other);
    penalties.recordSuccess("a", secret);
    expect(penalties.secretsOf("a")).toEqual([secret, other]);
    for (let i = 0; i < 100; i += 1) penalties.recordSuccess("a", Secret.fromKeyFile(Buffer.of(i)));
    expect(penalties.secretsOf("a")).toHaveLength(16);
  });

  it("are kept for a limited number of sources", () => {
    fail("first", 5);
    for (let i = 0; i < 16_384; i += 1) penalties.recordFailure(`source ${i}`, KEYS);
    expect(penalties.has("first")).toBe(false);
  });

  it("end for all sources when the keys change", () => {
    fail("a", 5);
    penalties.clear();
    expect(penalties.has("a")).toBe(false);
  });
});
