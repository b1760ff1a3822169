/** Requirements of tests on the machine that runs them. */
import { describe, it } from "vitest";
import { isInstalled, type Program } from "./test-programs.ts";

type Need = Program | "root";

const isMet = (need: Need) => (need === "root" ? process.getuid?.() === 0 : isInstalled(need));

/**
 * Returns `describe` for tests that need installed programs or root. If one is missing, the tests are skipped, and the
 * end of the run lists it.
 */
export function describeIfInstalled(...needs: readonly Need[]): typeof describe | typeof describe.skip {
  return needs.every(isMet) ? describe : describe.skip;
}

/** Returns `it` for a test that needs installed programs or root. */
export function itIfInstalled(...needs: readonly Need[]): typeof it | typeof it.skip {
  return needs.every(isMet) ? it : it.skip;
}
