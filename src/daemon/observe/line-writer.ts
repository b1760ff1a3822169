/**
 * Writes lines to a reader that may be slow, stuck or gone, without ever blocking the daemon. Up to a limit lines are
 * buffered; the rest are dropped and counted.
 */
import { constants, fstatSync, openSync, writeSync } from "node:fs";
import { Writable } from "node:stream";
import { startTimeout } from "../../net/timers.ts";

/** Maximum amount of data buffered for a reader, in bytes: about 2,000 lines. */
const MAX_PENDING_BYTES = 256 * 1024;
/** Maximum time to wait for the reader when the program exits, in ms. */
const FLUSH_TIMEOUT_MS = 1000;
/** Time before writing is retried if a terminal accepts no data, in ms. */
const TERMINAL_RETRY_MS = 20;

/** Writes lines to a stream, which several writers may share. The stream's owner must handle its errors. */
export class LineWriter {
  readonly #stream: Writable;
  readonly #onRecovered: (dropped: number) => void;
  #dropped = 0;

  /** @param onRecovered - called with the number of dropped lines when the reader has caught up. */
  constructor(stream: Writable, onRecovered: (dropped: number) => void) {
    this.#stream = stream;
    this.#onRecovered = onRecovered;
  }

  /** @param line - including its newline. */
  write(line: string): void {
    if (this.#dropped === 0) {
      if (this.#stream.writableLength + line.length <= MAX_PENDING_BYTES) {
        this.#stream.write(line, this.#onWritten);
        return;
      }
      // If another writer filled the stream, only this write reports when it has drained.
      this.#stream.write("", this.#onWritten);
    }
    // Later lines are dropped too, so that none precedes the message about dropped lines.
    this.#dropped += 1;
  }

  readonly #onWritten = (error?: Error | null) => {
    if (error || this.#dropped === 0 || this.#stream.writableLength > MAX_PENDING_BYTES / 2) return;
    const dropped = this.#dropped;
    this.#dropped = 0;
    this.#onRecovered(dropped);
  };
}

/** Returns the message about dropped lines. */
export const droppedMessage = (dropped: number) =>
  `${dropped} ${dropped === 1 ? "message was" : "messages were"} dropped: the log was not read`;

let isOpen = false;

/**
 * Writes to `process.stderr`, which Node opens on first use: a millisecond that `spipe` rarely needs. Errors are
 * ignored.
 */
export function writeError(text: string): void {
  if (!isOpen) process.stderr.on("error", () => {});
  isOpen = true;
  process.stderr.write(text);
}

let stderr: Writable | undefined;

/**
 * Returns standard error as a stream that does not block on its reader. For pipes and sockets, that is
 * `process.stderr`. On a terminal, `process.stderr` blocks after Ctrl-S; on a file, it stops writing once the disk has
 * been full.
 */
export function standardError(): Writable {
  stderr ??= openStandardError();
  return stderr;
}

function openStandardError(): Writable {
  const kind = fstatSync(2);
  if (kind.isFIFO() || kind.isSocket()) return process.stderr;
  return new DescriptorStream(process.stderr.isTTY ? reopenTerminal() : 2);
}

/** Resolves when all data is written to standard error, or after a second. */
export async function flushStandardError(): Promise<void> {
  if (!isOpen && stderr === undefined) return;
  const stream = stderr ?? process.stderr;
  if (stream.writableLength === 0 || stream.destroyed) return;
  await new Promise<void>((resolve) => {
    const cancel = startTimeout(FLUSH_TIMEOUT_MS, resolve);
    stream.write("", () => {
      cancel();
      resolve();
    });
  });
}

/**
 * Opens the terminal again: O_NONBLOCK applies to the open file description, which other programs share.
 *
 * @returns the descriptor; that of standard error if the terminal cannot be opened.
 */
function reopenTerminal(): number {
  try {
    return openSync("/dev/fd/2", constants.O_WRONLY | constants.O_NONBLOCK | constants.O_NOCTTY);
  } catch {
    return 2;
  }
}

/** Writes to a file, or to a terminal opened with O_NONBLOCK. Data that cannot be written is discarded. */
class DescriptorStream extends Writable {
  readonly #fd: number;

  constructor(fd: number) {
    super();
    this.#fd = fd;
  }

  override _write(chunk: Buffer, encoding: BufferEncoding, callback: () => void): void {
    let written = chunk.length;
    try {
      written = writeSync(this.#fd, chunk);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "EAGAIN") written = 0;
    }
    if (written === chunk.length) callback();
    else startTimeout(TERMINAL_RETRY_MS, () => this._write(chunk.subarray(written), encoding, callback));
  }
}
