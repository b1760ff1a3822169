/** Runs many worlds, and those in which defects were found. */
import { describe, expect, it } from "vitest";
import { loadEngine } from "../../src/protocol/engine/select.ts";
import { REGRESSIONS } from "./regressions.ts";
import { runSeed } from "./run-seed.ts";
import { build, describeFailure, runSeeds } from "./runner.mjs";
import { runWorld } from "./world.ts";

const SEEDS = 10_000;
const TIMEOUT_MS = 20 * 60_000;

describe("worlds in which a defect was found", () => {
  it.each(REGRESSIONS)("$name", async ({ seed, scenario }) => {
    const { violations, connections } = await runWorld(seed, await loadEngine(), { scenario });
    expect(violations).toEqual([]);
    expect(connections).toBeGreaterThan(0);
  });
});

describe("a world", () => {
  it.each([
    ["of daemons", 1],
    ["of the library", 3],
  ])("%s is the same each time it is run", async (_, seed) => {
    const engine = await loadEngine();
    const first = await runSeed(seed, engine, true);
    await runSeed(2, engine);
    const second = await runSeed(seed, engine, true);
    expect(second.lines).toEqual(first.lines);
    expect(second.hash).toBe(first.hash);
    expect((await runSeed(2, engine)).hash).not.toBe(first.hash);
  });
});

it(
  `holds in the worlds of ${SEEDS} seeds`,
  async () => {
    const bundle = await build();
    const failures: string[] = [];
    try {
      await runSeeds(bundle.path, 1, SEEDS, {
        jobs: 2,
        maxFailures: 3,
        onFailure: (seed, result) => failures.push(describeFailure(seed, result)),
      });
    } finally {
      bundle.remove();
    }
    expect(failures.join("\n")).toBe("");
  },
  TIMEOUT_MS,
);
