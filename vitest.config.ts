import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    globalSetup: ["test/support/build.ts"],
    reporters: ["default", "./test/support/closing-reporter.ts"],
    testTimeout: 60_000,
    hookTimeout: 120_000,
    pool: "forks",
    maxWorkers: 2,
    coverage: { include: ["src/**/*.ts"], reporter: ["json"], reportOnFailure: true },
    // For the programs that tests start, not for the tests themselves: see scripts/coverage.mjs.
    env: process.env.PROGRAM_COVERAGE ? { NODE_V8_COVERAGE: process.env.PROGRAM_COVERAGE } : {},
  },
});
