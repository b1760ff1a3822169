/** The log interface. */

/** Structured data of a message, for logs with separate fields. */
export type Fields = Readonly<Record<string, string | number | undefined>>;

/** Receives messages, one line each, without the program's name. */
export interface Log {
  /** Logs a condition that an operator should know about. */
  warn(message: string, fields?: Fields): void;
  /** Logs normal operation, with `--log-level info` only. */
  info(message: string, fields?: Fields): void;
}

/** Returns a log that forwards each message to all `logs`. */
export function teeLog(...logs: readonly Log[]): Log {
  return {
    warn(message, fields) {
      for (const log of logs) log.warn(message, fields);
    },
    info(message, fields) {
      for (const log of logs) log.info(message, fields);
    },
  };
}

/** Returns a log that discards messages of level `info`. */
export function warningsOnly(log: Log): Log {
  return { warn: (message, fields) => log.warn(message, fields), info: () => {} };
}
