import { randomBytes } from "node:crypto";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Secret } from "../../src/protocol/secret.ts";
import { Penalties } from "../../src/tunnel/penalties.ts";

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
  for (let i = 0; i < times; i += 1) penalties.failed(source, KEYS);
};

describe("penalties", () => {
  it("take effect when several failures have added up, for one source only, and run down", () => {
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

  it("do not meet a client that retries every second or two, nor one key's wrong handshakes by the dozen", () => {
    for (let i = 0; i < 60; i += 1) {
      fail("a", 1);
      vi.advanceTimersByTime(1100);
    }
    for (let i = 0; i < 100; i += 1) penalties.failed("b", 1);
    expect(reported).toEqual([]);
  });

  it("grow with each time, up to a cap, and are forgotten", () => {
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

  it("end when a client of the source succeeds, whose secrets are remembered, the last one first", () => {
    fail("a", 5);
    penalties.succeeded("a", secret);
    expect(penalties.has("a")).toBe(false);
    const other = Secret.fromKeyFile(randomBytes(32));
    penalties.succeeded("a", other);
    penalties.succeeded("a", secret);
    expect(penalties.secretsOf("a")).toEqual([secret, other]);
    for (let i = 0; i < 100; i += 1) penalties.succeeded("a", Secret.fromKeyFile(Buffer.of(i)));
    expect(penalties.secretsOf("a")).toHaveLength(16);
  });

  it("remember a limited number of sources", () => {
    fail("first", 5);
    for (let i = 0; i < 16_384; i += 1) penalties.failed(`source ${i}`, KEYS);
    expect(penalties.has("first")).toBe(false);
  });

  it("end for all when the keys have changed", () => {
    fail("a", 5);
    penalties.forgive();
    expect(penalties.has("a")).toBe(false);
  });
});
