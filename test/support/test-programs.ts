/** The programs that tests run in addition to this project's. scripts/install-test-programs.mjs installs them. */
import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";
import packages from "./debian-packages.json" with { type: "json" };

/** A program that tests may need. Add a new one to debian-packages.json, with its package. */
export type Program = keyof typeof packages;

const SYSTEM_DIRECTORIES = ["/usr/sbin", "/sbin", "/usr/local/sbin"];

/** Returns true if a program is installed. */
export function isInstalled(program: Program): boolean {
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

/** Returns the programs that are not installed, and the Debian and Ubuntu packages that contain them. */
export function missingPrograms(): { programs: Program[]; packages: string[] } {
  const programs = (Object.keys(packages) as Program[]).filter((program) => !isInstalled(program));
  return { programs, packages: [...new Set(programs.map((program) => packages[program]))].sort() };
}
