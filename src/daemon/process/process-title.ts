/** Sets the process title, for `ps` and `pgrep`. */
import { writeFileSync } from "node:fs";

/** Replaces Node's command line with the program's name and arguments, which never contain secrets. */
export function setProcessTitle(program: string, args: readonly string[]): void {
  process.title = [program, ...args].join(" ");
  try {
    // Setting the title also changes the short name, which `pgrep -x spiped` compares.
    writeFileSync("/proc/self/comm", program);
  } catch {
    // Not Linux.
  }
}
