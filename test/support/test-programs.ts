/** The programs that tests run besides those of this project. scripts/install-test-programs.mjs installs them. */
import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";
import packages from "./debian-packages.json" with { type: "json" };

/** A program that tests may need. A new one belongs in debian-packages.json, with the package that has it. */
export type Program = keyof typeof packages;

const SYSTEM_DIRECTORIES = ["/usr/sbin", "/sbin", "/usr/local/sbin"];

/** True if a program is installed. */
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

/** The programs that are not installed, and the packages of Debian and Ubuntu that have them. */
export function missingPrograms(): { programs: Program[]; packages: string[] } {
  const programs = (Object.keys(packages) as Program[]).filter((program) => !isInstalled(program));
  return { programs, packages: [...new Set(programs.map((program) => packages[program]))].sort() };
}
