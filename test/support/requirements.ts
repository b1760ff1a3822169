/** What a test needs of the machine it runs on. */
import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";
import { describe } from "vitest";

const SYSTEM_DIRECTORIES = ["/usr/sbin", "/sbin", "/usr/local/sbin"];

/** True if a program is installed. */
export function isInstalled(program: string): boolean {
  const directories = [...(process.env.PATH ?? "").split(delimiter), ...SYSTEM_DIRECTORIES];
  return directories.some((directory) => {
    try {
      accessSync(join(directory, program), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

/**
 * `describe` for tests that need real programs, or to be root. Where one is missing they are skipped, and named at the
 * end of the run; with CI=true nothing is skipped, so that they fail.
 */
export function describeWith(...needs: readonly (string | "root")[]): typeof describe | typeof describe.skip {
  const missing = needs.filter((need) => (need === "root" ? process.getuid?.() !== 0 : !isInstalled(need)));
  return missing.length === 0 || process.env.CI === "true" ? describe : describe.skip;
}
