/** Messages on standard error: one line each, after the program's name. */
import { fstatSync } from "node:fs";
import { escapeUnprintable } from "../../config/printable.ts";
import { droppedMessage, LineWriter, standardError } from "./line-writer.ts";
import type { Log } from "./log.ts";

/** Priorities in the way of `sd-daemon`. */
const WARNING = "<4>";
const INFO = "<6>";

/**
 * A log on standard error. Where systemd's journal reads it, each line begins with its priority. A reader that has
 * gone away is no reason to fail, nor is one that does not read a reason to wait.
 */
export function stderrLog(program: string): Log {
  const journal = isJournal();
  process.stderr.on("error", () => {});
  const writer = new LineWriter(standardError(), (dropped) => write(WARNING, droppedMessage(dropped)));
  const write = (priority: string, message: string) =>
    writer.write(`${journal ? priority : ""}${program}: ${escapeUnprintable(message)}\n`);
  return {
    warn: (message) => write(WARNING, message),
    info: (message) => write(INFO, message),
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
