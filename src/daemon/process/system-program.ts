/**
 * Locates system programs that are used for features missing from Node. PATH is not searched: another user may have set
 * it, and the daemon may run as root.
 */
import { statSync } from "node:fs";
import { join } from "node:path";
import { SpipedError } from "../../errors.ts";
import { requireTrustedFile } from "../../net/trusted-path.ts";

/** Directories of system programs; the last is for NixOS. */
const DIRECTORIES = ["/usr/bin", "/bin", "/run/current-system/sw/bin"];

/** The program does not exist in any of the directories. */
class MissingProgramError extends SpipedError {
  constructor() {
    super("ERR_SPIPED_MISSING_PROGRAM", `not found in ${DIRECTORIES.join(", ")}`);
  }
}

/**
 * Returns the absolute path of a program that only root can have installed.
 *
 * @throws MissingProgramError, or UntrustedPathError if another user could have installed it.
 */
export function systemProgram(name: string): string {
  const path = DIRECTORIES.map((directory) => join(directory, name)).find(isExecutable);
  if (path === undefined) throw new MissingProgramError();
  requireTrustedFile(path);
  return path;
}

function isExecutable(path: string): boolean {
  const status = statSync(path, { throwIfNoEntry: false });
  return status?.isFile() === true && (status.mode & 0o111) !== 0;
}
