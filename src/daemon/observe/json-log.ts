/** Writes messages as JSON, one object per line, to standard error (`--log-format json`). */
import { escapeUnprintable } from "../../config/printable.ts";
import { droppedMessage, LineWriter, standardError } from "./line-writer.ts";
import type { Log } from "./log.ts";

/** Returns a JSON log. Loads pino, which other configurations do not need. */
export async function jsonLog(program: string): Promise<Log> {
  const { pino, stdTimeFunctions } = await import("pino");
  // An error, such as a full disk if standard error is a file, must not stop the daemon.
  process.stderr.on("error", () => {});
  const writer = new LineWriter(standardError(), (dropped) =>
    logger.warn({ dropped }, droppedMessage(dropped)),
  );
  const logger = pino(
    {
      name: program,
      level: "info",
      base: { name: program, pid: process.pid },
      timestamp: stdTimeFunctions.isoTime,
    },
    writer,
  );
  return {
    warn: (message, fields) => logger.warn(fields ?? {}, escapeUnprintable(message)),
    info: (message, fields) => logger.info(fields ?? {}, escapeUnprintable(message)),
  };
}
