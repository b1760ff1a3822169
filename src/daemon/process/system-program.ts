/**
 * Programs of the system that are run for what Node lacks. They are never looked for in PATH: it may come from another
 * user, and the daemon may be root.
 */
import { statSync } from "node:fs";
import { join } from "node:path";
import { SpipedError } from "../../errors.ts";
import { requireTrustedFile } from "../../net/trusted-path.ts";

/** Where systems have them; the last one is NixOS's. */
const DIRECTORIES = ["/usr/bin", "/bin", "/run/current-system/sw/bin"];

/** There is no such program. */
class MissingProgramError extends SpipedError {
  constructor() {
    super("ERR_SPIPED_MISSING_PROGRAM", `not found in ${DIRECTORIES.join(", ")}`);
  }
}

/**
 * The absolute path of a program that only root can have put there.
 *
 * @throws MissingProgramError; UntrustedPathError if another user could have.
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
