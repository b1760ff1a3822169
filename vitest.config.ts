import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    reporters: ["default", "./test/support/closing-reporter.ts"],
    testTimeout: 60_000,
    hookTimeout: 120_000,
    pool: "forks",
    maxWorkers: 2,
    coverage: { include: ["src/**/*.ts"], reporter: ["json"], reportOnFailure: true },
    // For the programs that tests start, not for the tests themselves: see scripts/coverage.mjs.
    env: process.env.PROGRAM_COVERAGE ? { NODE_V8_COVERAGE: process.env.PROGRAM_COVERAGE } : {},
    projects: [
      { extends: true, test: { name: "unit", include: ["test/unit/**/*.test.ts"] } },
      {
        extends: true,
        test: {
          name: "simulation",
          include: ["test/simulation/**/*.test.ts"],
          // Alone: it uses all processors.
          sequence: { groupOrder: 2 },
        },
      },
      {
        extends: true,
        test: {
          name: "system",
          include: ["test/system/**/*.test.ts"],
          globalSetup: ["test/support/build.ts"],
          // After the unit tests, which are fast.
          sequence: { groupOrder: 1 },
        },
      },
    ],
  },
});
