/**
 * Sends messages to syslog. Node has no UNIX datagram sockets, so they go through the system's `logger`, one process
 * that runs as long as this one and reads lines. Facility, tag and the priority of warnings are those of Tarsnap's
 * spiped. `logger` takes the priority of each line from a prefix.
 */
import { type ChildProcess, type ChildProcessByStdio, spawn } from "node:child_process";
import type { Writable } from "node:stream";
import { escapeUnprintable } from "../../config/printable.ts";
import { startTimeout } from "../../net/timers.ts";
import { systemProgram } from "../process/system-program.ts";
import { droppedMessage, LineWriter } from "./line-writer.ts";
import type { Log } from "./log.ts";

/** Maximum length of a message, in bytes, the same as in Tarsnap's spiped. */
const MAX_MESSAGE_BYTES = 4095;

/** Maximum time for `logger` to send the last messages, in ms. */
const FLUSH_TIMEOUT_MS = 1000;

/** Prefixes for facility `user` (1) with priorities `warning` (4) and `info` (6). */
const WARNING = `<${8 + 4}>`;
const INFO = `<${8 + 6}>`;

/** A log that writes to syslog. */
export class Syslog implements Log {
  readonly #program: string;
  readonly #onFailure: (reason: string) => void;
  #logger: ChildProcess | undefined;
  #writer: LineWriter | undefined;

  /** @param onFailure - called once for each `logger` process that cannot be started or fails. */
  constructor(program: string, onFailure: (reason: string) => void) {
    this.#program = program;
    this.#onFailure = onFailure;
  }

  warn(message: string): void {
    this.#write(WARNING, message);
  }

  info(message: string): void {
    this.#write(INFO, message);
  }

  #write(priority: string, message: string): void {
    this.#logger ??= this.#start();
    this.#writer?.write(`${priority}${escapeUnprintable(message)}\n`);
  }

  /** Resolves when `logger` has sent all messages and exited; kills it if that takes too long. */
  async close(): Promise<void> {
    const logger = this.#logger;
    if (logger === undefined) return;
    await new Promise<void>((resolve) => {
      const cancel = startTimeout(FLUSH_TIMEOUT_MS, () => logger.kill("SIGKILL"));
      logger.once("close", () => {
        cancel();
        resolve();
      });
      logger.stdin?.end();
    });
  }

  #start(): ChildProcess | undefined {
    const args = ["-t", this.#program, "--prio-prefix", "--size", String(MAX_MESSAGE_BYTES)];
    const { TZ } = process.env;
    let logger: ChildProcessByStdio<Writable, null, null>;
    try {
      // `logger` adds the local time to messages.
      const env = TZ === undefined ? {} : { TZ };
      logger = spawn(systemProgram("logger"), args, { stdio: ["pipe", "ignore", "ignore"], env });
    } catch (error) {
      this.#onFailure(`cannot run logger: ${(error as Error).message}`);
      return undefined;
    }
    const handleFailure = (reason: string) => {
      if (this.#logger !== logger) return;
      this.#logger = undefined;
      this.#onFailure(reason);
    };
    logger.stdin.on("error", () => {});
    this.#writer = new LineWriter(logger.stdin, (dropped) => this.warn(droppedMessage(dropped)));
    logger.on("error", (error) => handleFailure(`cannot run logger: ${error.message}`));
    logger.on("exit", (status, signal) => {
      if (status !== 0) handleFailure(`logger exited with ${signal ?? `status ${String(status)}`}`);
    });
    return logger;
  }
}
