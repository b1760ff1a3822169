/** Messages on standard error: one line each, after the program's name. */
import { fstatSync } from "node:fs";
import type { Log } from "./log.ts";

/** Priority of a warning in the way of `sd-daemon`. */
const WARNING = "<4>";

/**
 * A log on standard error. Where systemd's journal reads it, each line begins with its priority. A reader that has
 * gone away is no reason to fail.
 */
export function stderrLog(program: string): Log {
  const prefix = isJournal() ? `${WARNING}${program}: ` : `${program}: `;
  process.stderr.on("error", () => {});
  return {
    warn(message) {
      process.stderr.write(`${prefix}${message}\n`);
    },
  };
}

/** True if standard error is the very stream that the journal says it reads. */
function isJournal(): boolean {
  const { JOURNAL_STREAM } = process.env;
  if (JOURNAL_STREAM === undefined) return false;
  try {
    const { dev, ino } = fstatSync(2);
    return JOURNAL_STREAM === `${dev}:${ino}`;
  } catch {
    return false;
  }
}
