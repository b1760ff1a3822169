/** How the process looks in `ps` and to `pgrep`. */
import { writeFileSync } from "node:fs";

/** Shows the program's name and arguments instead of Node's: no argument is ever a secret. */
export function showProcessAs(program: string, args: readonly string[]): void {
  process.title = [program, ...args].join(" ");
  try {
    // The title has become the short name too, which `pgrep -x spiped` compares.
    writeFileSync("/proc/self/comm", program);
  } catch {
    // Not Linux.
  }
}
