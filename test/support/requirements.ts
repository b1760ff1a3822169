/** What a test needs of the machine it runs on. */
import { describe, it } from "vitest";
import { isInstalled, type Program } from "./test-programs.ts";

type Need = Program | "root";

const isMet = (need: Need) => (need === "root" ? process.getuid?.() === 0 : isInstalled(need));

/**
 * `describe` for tests that need real programs, or to be root. If one is missing the tests are skipped, and the end of
 * the run names it.
 */
export function describeWith(...needs: readonly Need[]): typeof describe | typeof describe.skip {
  return needs.every(isMet) ? describe : describe.skip;
}

/** `it` for one test that needs real programs, or to be root. */
export function itWith(...needs: readonly Need[]): typeof it | typeof it.skip {
  return needs.every(isMet) ? it : it.skip;
}
