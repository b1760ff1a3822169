import type { Reporter, TestCase, TestModule } from "vitest/node";

/** Ends a run with the names of skipped tests and one line that counts. */
// biome-ignore lint/style/noDefaultExport: vitest loads reporters this way
export default class ClosingReporter implements Reporter {
  onTestRunEnd(modules: readonly TestModule[], errors: readonly unknown[]): void {
    const count = { passed: 0, failed: errors.length };
    const skipped: TestCase[] = [];
    for (const module of modules) {
      if (module.errors().length > 0) count.failed += 1;
      for (const test of module.children.allTests()) {
        const { state } = test.result();
        if (state === "passed") count.passed += 1;
        else if (state === "failed") count.failed += 1;
        else skipped.push(test);
      }
    }
    for (const test of skipped) console.log(`skipped: ${test.module.relativeModuleId} > ${test.fullName}`);
    const rest = skipped.length > 0 ? `, ${skipped.length} skipped` : "";
    console.log(`${count.passed} passed, ${count.failed} failed${rest}`);
  }
}
