/** Replaces system programs for one command. Requires root and `unshare`. */
import { execFileSync } from "node:child_process";
import { realpathSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { temporaryDirectory } from "./programs.ts";

/**
 * Returns a command that runs another one, with the same process ID, for which a system program is missing or
 * replaced.
 *
 * @param name - an installed program.
 * @param script - the shell script that replaces it; if undefined, the program is missing.
 */
export function withProgram(name: string, script: string | undefined, command: readonly string[]): string[] {
  const path = execFileSync("/bin/sh", ["-c", 'command -v "$0"', name], { encoding: "utf8" }).trim();
  const file = join(temporaryDirectory(), name);
  // A file that is not executable is not found as a program.
  writeFileSync(file, `#!/bin/sh\n${script ?? ""}\n`, { mode: script === undefined ? 0o644 : 0o755 });
  const mount = 'mount --bind "$0" "$1" && shift && exec "$@"';
  return ["unshare", "--mount", "sh", "-c", mount, file, realpathSync(path), ...command];
}
