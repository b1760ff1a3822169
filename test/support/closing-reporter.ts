import type { Reporter, TestModule } from "vitest/node";
import { missingPrograms } from "./test-programs.ts";

/** Prints skipped tests with the reason, and a line of totals, at the end of a run. */
export default class ClosingReporter implements Reporter {
  onTestRunEnd(modules: readonly TestModule[], errors: readonly unknown[]): void {
    const count = { passed: 0, failed: errors.length, skipped: 0 };
    for (const module of modules) {
      if (module.errors().length > 0) count.failed += 1;
      let skipped = 0;
      for (const test of module.children.allTests()) {
        const { state } = test.result();
        if (state === "passed") count.passed += 1;
        else if (state === "failed") count.failed += 1;
        else skipped += 1;
      }
      if (skipped > 0) console.log(`${module.relativeModuleId}: ${skipped} skipped`);
      count.skipped += skipped;
    }
    if (count.skipped > 0) explainSkipped();
    const rest = count.skipped > 0 ? `, ${count.skipped} skipped` : "";
    console.log(`${count.passed} passed, ${count.failed} failed${rest}`);
  }
}

/** Prints the requirements that this machine lacks, and how to install them. */
function explainSkipped(): void {
  const { programs, packages } = missingPrograms();
  if (programs.length > 0) {
    console.log(`Skipped tests need programs that are not installed: ${programs.join(", ")}`);
    console.log(
      `On Debian or Ubuntu, as root: apt-get install --no-install-recommends ${packages.join(" ")}`,
    );
  }
  if (process.getuid?.() !== 0) console.log("Some skipped tests need root.");
}
