/** Messages as JSON, one object a line, on standard error (`--log-format json`). */
import { escapeUnprintable } from "../config/printable.ts";
import type { Log } from "./log.ts";

/** A log that is written by pino, which is loaded now. */
export async function jsonLog(program: string): Promise<Log> {
  const { pino, destination, stdTimeFunctions } = await import("pino");
  // A full disk, say, under the file that standard error goes to: no reason to fail.
  const stderr = destination({ dest: 2, sync: true });
  stderr.on("error", () => {});
  const logger = pino(
    {
      name: program,
      level: "info",
      base: { name: program, pid: process.pid },
      timestamp: stdTimeFunctions.isoTime,
    },
    stderr,
  );
  return {
    warn: (message, fields) => logger.warn(fields ?? {}, escapeUnprintable(message)),
    info: (message, fields) => logger.info(fields ?? {}, escapeUnprintable(message)),
  };
}
