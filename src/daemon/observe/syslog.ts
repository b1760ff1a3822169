/**
 * Messages to syslog. Node has no UNIX datagram sockets, so they go through the system's `logger`: one process that
 * reads lines as long as we live, with the original's facility, priority and tag. A line's own priority, which `logger`
 * takes from a prefix, holds for information.
 */
import { type ChildProcess, type ChildProcessByStdio, spawn } from "node:child_process";
import type { Writable } from "node:stream";
import { escapeUnprintable } from "../../config/printable.ts";
import { deadline } from "../../net/timers.ts";
import { systemProgram } from "../process/system-program.ts";
import { droppedMessage, LineWriter } from "./line-writer.ts";
import type { Log } from "./log.ts";

/** The longest message, bytes, as with the original. */
const LONGEST = 4095;

/** How long `logger` may take to pass on the last messages, ms. */
const LAST_WORDS = 1000;

/** Facility `user` (1) with the priorities of a warning and of information. */
const WARNING = `<${8 + 4}>`;
const INFO = `<${8 + 6}>`;

/** A log that ends in syslog. */
export class Syslog implements Log {
  readonly #program: string;
  readonly #onFailure: (reason: string) => void;
  #logger: ChildProcess | undefined;
  #writer: LineWriter | undefined;

  /** @param onFailure told once for each `logger` that can't be started or dies. */
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

  /** Ends `logger` when it has passed on what it was given, or does not do so in time. */
  async close(): Promise<void> {
    const logger = this.#logger;
    if (logger === undefined) return;
    await new Promise<void>((resolve) => {
      const cancel = deadline(LAST_WORDS, () => logger.kill("SIGKILL"));
      logger.once("close", () => {
        cancel();
        resolve();
      });
      logger.stdin?.end();
    });
  }

  #start(): ChildProcess | undefined {
    const args = ["-t", this.#program, "--prio-prefix", "--size", String(LONGEST)];
    const { TZ } = process.env;
    let logger: ChildProcessByStdio<Writable, null, null>;
    try {
      // Messages carry the local time.
      const env = TZ === undefined ? {} : { TZ };
      logger = spawn(systemProgram("logger"), args, { stdio: ["pipe", "ignore", "ignore"], env });
    } catch (error) {
      this.#onFailure(`Cannot run logger: ${(error as Error).message}`);
      return undefined;
    }
    const gone = (reason: string) => {
      if (this.#logger !== logger) return;
      this.#logger = undefined;
      this.#onFailure(reason);
    };
    logger.stdin.on("error", () => {});
    this.#writer = new LineWriter(logger.stdin, (dropped) => this.warn(droppedMessage(dropped)));
    logger.on("error", (error) => gone(`Cannot run logger: ${error.message}`));
    logger.on("exit", (status, signal) => {
      if (status !== 0) gone(`logger ended with ${signal ?? `status ${status}`}`);
    });
    return logger;
  }
}
