/** Filters for lines of our daemons' logs. */

/** Returns a log without the lines about failed connections. */
export function withoutFailureLines(log: string): string {
  return log.replaceAll(/^spiped: (\S+: )?connection \d+ from .* failed: .*\n/gm, "");
}

/** Returns a log without the lines about the daemon's start, its addresses and its reloads. */
export function withoutLifecycleLines(log: string): string {
  return log.replaceAll(/^spiped: (starting, |(\S+: )?listening on |reloading$|reloaded$).*\n/gm, "");
}
