/** Where the daemon's messages go. */

/** Takes messages, one line each, without the program's name. */
export interface Log {
  warn(message: string): void;
}

/** A log that hands each message to all the others. */
export function bothLogs(...logs: readonly Log[]): Log {
  return {
    warn(message) {
      for (const log of logs) log.warn(message);
    },
  };
}
