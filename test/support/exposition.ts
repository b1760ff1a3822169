/** Parses Prometheus' text format, version 0.0.4, as strictly as `promtool check metrics`. */
import { expect } from "vitest";

/** Prometheus reads NaN in any case; prom-client writes `Nan`. */
const SAMPLE = /^([a-zA-Z_:][a-zA-Z0-9_:]*)(\{.*\})? (Na[nN]|[+-]Inf|[-+\d.eE]+)$/;
const LABELS = /^\{(?:[a-zA-Z_]\w*="(?:[^"\\]|\\[\\n"])*"(?:,(?!\})|(?=\})))+\}$/;
const SUFFIXES: Record<string, RegExp> = { histogram: /_(bucket|sum|count)$/, summary: /_(sum|count)$/ };

/**
 * Checks metrics: each family is contiguous with HELP and TYPE first, series are unique, and values are numbers.
 *
 * @returns the values by series.
 */
export function readExposition(text: string): Map<string, number> {
  expect(text.endsWith("\n")).toBe(true);
  const series = new Map<string, number>();
  const types = new Map<string, string>();
  let family = "";
  for (const line of text.split("\n").filter((line) => line !== "")) {
    const [, comment, name = "", rest] = /^# (HELP|TYPE) (\S+) (.+)$/.exec(line) ?? [];
    if (comment === "HELP") {
      expect(types.has(name), `${name} twice`).toBe(false);
      family = name;
    } else if (comment === "TYPE") {
      expect(name, line).toBe(family);
      expect(["counter", "gauge", "histogram", "summary"]).toContain(rest);
      types.set(name, rest!);
    } else {
      const [, sample = "", labels, value] = SAMPLE.exec(line) ?? [];
      expect(sample.replace(SUFFIXES[types.get(family)!] ?? "", ""), line).toBe(family);
      if (labels !== undefined) expect(labels).toMatch(LABELS);
      expect(series.has(sample + (labels ?? "")), `${line} twice`).toBe(false);
      series.set(sample + (labels ?? ""), Number(value!.replace("Inf", "Infinity")));
    }
  }
  return series;
}
