import { describe, expect, it } from "vitest";
import { parseCount, parseSeconds } from "../../../src/config/numbers.ts";

const NONE = Number.POSITIVE_INFINITY;

describe("a count", () => {
  it.each([
    ["5", 5],
    [" 5", 5],
    ["+5", 5],
    ["010", 8],
    ["0x10", 16],
    ["0X1f", 31],
    ["0", NONE],
    ["00", NONE],
    ["-0", NONE],
    ["-1", NONE],
    ["18446744073709551615", NONE],
    ["-18446744073709551615", 1],
  ])("%j is %d", (text, count) => {
    expect(parseCount(text)).toBe(count);
  });

  it.each(["", " ", "foo", "1.5", "5 ", "0x", "09", "08", "1e3", "--1", "0b1", "0o7"])(
    "%j is invalid",
    (text) => {
      expect(() => parseCount(text)).toThrow("Invalid argument");
    },
  );

  it.each(["18446744073709551616", "-18446744073709551616", "0xfffffffffffffffff"])(
    "%s is too large",
    (text) => {
      expect(() => parseCount(text)).toThrow("out of range");
    },
  );
});

describe("a number of seconds", () => {
  it.each([
    ["5", 5],
    [".5", 0.5],
    ["5.", 5],
    ["1e1", 10],
    ["0x10", 16],
    ["0x.8", 0.5],
    ["0x1p4", 16],
    ["inf", NONE],
    ["INFINITY", NONE],
    ["-0", 0],
    ["\t1", 1],
    ["nan", Number.NaN],
    ["NaN(7)", Number.NaN],
  ])("%j is %d", (text, seconds) => {
    expect(parseSeconds(text)).toBe(seconds);
  });

  it.each(["", "x", "5s", "5 ", "1e", "0x", "0x.p1", "infinit", "1_000", "."])("%j is invalid", (text) => {
    expect(() => parseSeconds(text)).toThrow("Invalid argument");
  });

  it.each(["-1", "-inf", "1e999", "1e-999", "0x1p99999"])("%s is out of range", (text) => {
    expect(() => parseSeconds(text)).toThrow("out of range");
  });
});
