/** Writes messages to standard error, one line each, after the program's name. */
import { fstatSync } from "node:fs";
import { escapeUnprintable } from "../../config/printable.ts";
import { droppedMessage, LineWriter, standardError } from "./line-writer.ts";
import type { Log } from "./log.ts";

/** Priority prefixes as defined by `sd-daemon(3)`. */
const WARNING = "<4>";
const INFO = "<6>";

/**
 * Returns a log on standard error. If systemd's journal reads it, each line begins with its priority. Write errors are
 * ignored, and a reader that does not read never blocks the daemon.
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

/** Returns true if standard error is the stream that the journal reads, according to JOURNAL_STREAM. */
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
