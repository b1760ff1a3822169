/** Where messages go, as the options say. */
import { PROGRAM } from "../../config/options.ts";
import type { ProcessSettings } from "../../config/process-settings.ts";
import { bothLogs, type Log, warningsOnly } from "./log.ts";
import type { Syslog } from "./syslog.ts";

/** After daemonizing `--syslog` means syslog alone, as in the original; in the foreground, syslog beside standard error. */
export async function chooseLog(
  settings: ProcessSettings,
  stderr: Log,
  syslog: Syslog | undefined,
): Promise<Log> {
  const { foreground, logFormat, logLevel } = settings;
  const plain = logFormat === "json" ? await (await import("./json-log.ts")).jsonLog(PROGRAM) : stderr;
  const log = syslog === undefined ? plain : foreground ? bothLogs(plain, syslog) : syslog;
  return logLevel === "info" ? log : warningsOnly(log);
}
