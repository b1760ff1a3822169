/**
 * Fairness among connections. The event loop reads a socket that always has more data up to 32 times before it polls
 * the others; encrypting that much takes milliseconds. So each source has a read budget per event-loop iteration and
 * continues in the next.
 *
 * The budget depends on the other connections. A bulk transfer is fastest with large reads. But large batches also make
 * each program on the path run longer before the next gets the CPU, which delays interactive connections. Small reads
 * reduce the 99th percentile of an echo during a transfer from 7 to 4.7 ms (Tarsnap's spiped: 4.6 ms); the transfer is
 * still 1.4 times as fast as with Tarsnap's spiped.
 */

/** Maximum bytes per read, and per source and event-loop iteration: two batches of packets, 0.2 ms of work. */
export const MAX_READ_BYTES = 128 * 1024;
/** The same while another connection is interactive; also the maximum bytes per read if the sink may be stalled. */
export const SHORT_READ_BYTES = 16 * 1024;
/**
 * Bytes after which a sink's peer is known to read: more than the kernel buffers for a socket (4 MiB by default).
 * Before that, the sink may fill up at any time and stay full, which keeps the last read in memory.
 */
const PROVEN_SINK_BYTES = 8 * 1024 * 1024;
/** Maximum number of sources that may use long reads before their sink is proven. */
const MAX_CREDITS = 16;
/** Time without a read after which a source's sink no longer counts as proven, in ms. */
const STALL_MS = 1000;
/** A connection is interactive if the average read in either direction is smaller than this, in bytes. */
const INTERACTIVE_READ_BYTES = 4096;
/** Time after an interactive connection's last read during which other connections use short reads, in ms. */
const INTERACTIVE_MS = 20;

/** The last interactive connection, and whether it has read since the clock was last checked. */
let interactive: object | undefined;
let hasInteractiveRead = false;
/** End of the time in which other connections use short reads. */
let interactiveUntil = 0;
let readSize = MAX_READ_BYTES;
let credits = MAX_CREDITS;

/** Returns the maximum size of the next read of the source counted last, in bytes. */
export function nextReadSize(): number {
  return readSize;
}

/** The read budget of one source. */
export class ReadBudget {
  readonly #connection: object;
  #average = 0;
  /** Bytes read since the last `begin`. */
  #read = 0;
  /** Bytes read since the sink last stalled. */
  #flowed = 0;
  #hasCredit = false;
  #lastRead = 0;

  /** @param connection - any object that both directions of a connection share. */
  constructor(connection: object) {
    this.#connection = connection;
  }

  /**
   * Counts a read.
   *
   * @returns false if the source must wait for the next event-loop iteration.
   */
  take(length: number): boolean {
    this.#average += (length - this.#average) / (this.#average === 0 ? 1 : 8);
    this.#read += length;
    this.#flowed += length;
    if (this.#average < INTERACTIVE_READ_BYTES) {
      interactive = this.#connection;
      hasInteractiveRead = true;
      // A short message does not check the clock, so that it costs little: the next long read does.
      if (length < INTERACTIVE_READ_BYTES) {
        readSize = SHORT_READ_BYTES;
        return this.#read < MAX_READ_BYTES;
      }
    }
    const now = performance.now();
    if (hasInteractiveRead) interactiveUntil = now + INTERACTIVE_MS;
    hasInteractiveRead = false;
    this.#lastRead = now;
    const limit =
      now < interactiveUntil && interactive !== this.#connection ? SHORT_READ_BYTES : MAX_READ_BYTES;
    readSize = this.#mayReadLong(length) ? limit : SHORT_READ_BYTES;
    return this.#read < limit;
  }

  /** Renews the budget; called when the source resumes after waiting for its next iteration or its sink. */
  begin(): void {
    this.#read = 0;
    if (performance.now() - this.#lastRead >= STALL_MS) this.#flowed = 0;
  }

  /** Returns the credit; called when reading from the source stops. */
  end(): void {
    if (this.#hasCredit) credits += 1;
    this.#hasCredit = false;
  }

  #mayReadLong(length: number): boolean {
    if (this.#flowed >= PROVEN_SINK_BYTES) {
      this.end();
      return true;
    }
    // A source whose reads are short needs no credit.
    if (!this.#hasCredit && length >= SHORT_READ_BYTES && credits > 0) {
      credits -= 1;
      this.#hasCredit = true;
    }
    return this.#hasCredit;
  }
}

let waiting: (() => void)[] = [];

/** Calls `resume` in the next event-loop iteration, after all events of this one. */
export function onNextIteration(resume: () => void): void {
  waiting.push(resume);
  if (waiting.length === 1) setImmediate(resumeAll);
}

function resumeAll(): void {
  const batch = waiting;
  waiting = [];
  for (const resume of batch) resume();
}
