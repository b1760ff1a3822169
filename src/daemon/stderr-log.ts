/** Messages on standard error: one line each, after the program's name. */
import { fstatSync } from "node:fs";
import { escapeUnprintable } from "../config/printable.ts";
import type { Log } from "./log.ts";

/** Priorities in the way of `sd-daemon`. */
const WARNING = "<4>";
const INFO = "<6>";

/**
 * A log on standard error. Where systemd's journal reads it, each line begins with its priority. A reader that has
 * gone away is no reason to fail.
 */
export function stderrLog(program: string): Log {
  const journal = isJournal();
  process.stderr.on("error", () => {});
  const write = (priority: string, message: string) =>
    process.stderr.write(`${journal ? priority : ""}${program}: ${escapeUnprintable(message)}\n`);
  return {
    warn: (message) => void write(WARNING, message),
    info: (message) => void write(INFO, message),
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
