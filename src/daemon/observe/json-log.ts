/** Messages as JSON, one object a line, on standard error (`--log-format json`). */
import { escapeUnprintable } from "../../config/printable.ts";
import { droppedMessage, LineWriter, standardError } from "./line-writer.ts";
import type { Log } from "./log.ts";

/** A log that is written by pino, which is loaded now. */
export async function jsonLog(program: string): Promise<Log> {
  const { pino, stdTimeFunctions } = await import("pino");
  // A full disk, say, under the file that standard error goes to: no reason to fail.
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
