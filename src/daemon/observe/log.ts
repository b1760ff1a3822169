/** Where the daemon's messages go. */

/** What a message is about, for logs that keep it apart from the text. */
export type Fields = Readonly<Record<string, string | number | undefined>>;

/** Takes messages, one line each, without the program's name. */
export interface Log {
  /** Something an operator should know of. */
  warn(message: string, fields?: Fields): void;
  /** The course of things, which is told with `--log-level info` only. */
  info(message: string, fields?: Fields): void;
}

/** A log that hands each message to all the others. */
export function bothLogs(...logs: readonly Log[]): Log {
  return {
    warn(message, fields) {
      for (const log of logs) log.warn(message, fields);
    },
    info(message, fields) {
      for (const log of logs) log.info(message, fields);
    },
  };
}

/** A log without the messages of level `info`. */
export function warningsOnly(log: Log): Log {
  return { warn: (message, fields) => log.warn(message, fields), info: () => {} };
}
