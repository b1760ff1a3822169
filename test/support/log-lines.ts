/** Lines of our daemons' logs. */

/** What a log says besides the lines about connections that failed. */
export function otherLines(log: string): string {
  return log.replaceAll(/^spiped: (\S+: )?connection \d+ from .* failed: .*\n/gm, "");
}

/** What a log says besides the lines about the daemon's start, its addresses and its reloads. */
export function withoutCourse(log: string): string {
  return log.replaceAll(/^spiped: (starting, |(\S+: )?listening on |reloading$|reloaded$).*\n/gm, "");
}
