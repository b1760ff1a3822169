/**
 * Lines for a reader that may be slow, stuck or gone: a log must never hold the daemon up. So much is kept for the
 * reader, the rest is dropped and counted.
 */
import { constants, fstatSync, openSync, writeSync } from "node:fs";
import { Writable } from "node:stream";
import { deadline } from "../../net/timers.ts";

/** How much may wait for a reader, bytes: about 2,000 lines. */
const MAX_PENDING_BYTES = 256 * 1024;
/** How long the last lines wait for a reader at the end of the program, ms. */
const FLUSH_TIMEOUT_MS = 1000;
/** How often a terminal that takes nothing is tried again, ms. */
const TERMINAL_RETRY_MS = 20;

/** Writes lines to a stream, of which several may have the same. Errors are the owner's to listen for. */
export class LineWriter {
  readonly #stream: Writable;
  readonly #onRecovered: (dropped: number) => void;
  #dropped = 0;

  /** @param onRecovered called when the reader has caught up after lines were dropped, with their number. */
  constructor(stream: Writable, onRecovered: (dropped: number) => void) {
    this.#stream = stream;
    this.#onRecovered = onRecovered;
  }

  /** @param line with its end. */
  write(line: string): void {
    if (this.#dropped === 0) {
      if (this.#stream.writableLength + line.length <= MAX_PENDING_BYTES) {
        this.#stream.write(line, this.#onWritten);
        return;
      }
      // What fills the stream may have been written by somebody else.
      this.#stream.write("", this.#onWritten);
    }
    // No line overtakes the message that lines are missing.
    this.#dropped += 1;
  }

  readonly #onWritten = (error?: Error | null) => {
    if (error || this.#dropped === 0 || this.#stream.writableLength > MAX_PENDING_BYTES / 2) return;
    const dropped = this.#dropped;
    this.#dropped = 0;
    this.#onRecovered(dropped);
  };
}

/** What to say of lines that were dropped. */
export const droppedMessage = (dropped: number) =>
  `${dropped} ${dropped === 1 ? "message was" : "messages were"} dropped: the log was not read`;

let stderr: Writable | undefined;

/**
 * Standard error as a stream that does not wait for its reader. For pipes and sockets, `process.stderr` is that. It does
 * wait for a terminal, where somebody may have pressed Ctrl-S; and after a full disk it would write to a file no more.
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

/** Waits until standard error has taken everything, or nobody has read it for a second. */
export async function flushStandardError(): Promise<void> {
  const stream = stderr ?? process.stderr;
  if (stream.writableLength === 0 || stream.destroyed) return;
  await new Promise<void>((resolve) => {
    const cancel = deadline(FLUSH_TIMEOUT_MS, resolve);
    stream.write("", () => {
      cancel();
      resolve();
    });
  });
}

/**
 * Opens the terminal once more: whether writing waits is a property of what was opened, which other programs share.
 *
 * @returns standard error itself if it can't be opened.
 */
function reopenTerminal(): number {
  try {
    return openSync("/dev/fd/2", constants.O_WRONLY | constants.O_NONBLOCK | constants.O_NOCTTY);
  } catch {
    return 2;
  }
}

/** Writes to a file, or to a terminal that was opened with O_NONBLOCK. What can't be written is lost. */
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
    else deadline(TERMINAL_RETRY_MS, () => this._write(chunk.subarray(written), encoding, callback));
  }
}
