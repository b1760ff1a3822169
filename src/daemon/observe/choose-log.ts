/** Selects the log destination. */
import { PROGRAM } from "../../config/options.ts";
import type { ProcessSettings } from "../../config/process-settings.ts";
import { type Log, teeLog, warningsOnly } from "./log.ts";
import type { Syslog } from "./syslog.ts";

/**
 * Returns the log. With `--syslog`, a daemon logs to syslog only, like Tarsnap's spiped; in the foreground, the log
 * goes to syslog and to standard error.
 */
export async function chooseLog(
  settings: ProcessSettings,
  stderr: Log,
  syslog: Syslog | undefined,
): Promise<Log> {
  const { foreground, logFormat, logLevel } = settings;
  const stderrLog = logFormat === "json" ? await (await import("./json-log.ts")).jsonLog(PROGRAM) : stderr;
  const log = syslog === undefined ? stderrLog : foreground ? teeLog(stderrLog, syslog) : syslog;
  return logLevel === "info" ? log : warningsOnly(log);
}
