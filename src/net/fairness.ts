/**
 * Fairness among connections. A socket that always has more to read would be read up to 32 times before the event loop
 * looks at any other; with that much to seal each time that is milliseconds. So each source reads for one turn of the
 * loop only so much, and goes on in the next.
 *
 * How much depends on who else is there. A transfer is fastest with large reads; beside a conversation on another
 * connection, though, large batches make every program on its way run long before the next one gets the processor.
 * Small ones bring the 99th percentile of an echo beside a transfer from 7 to 4.7 ms, where the original has 4.6, and
 * leave the transfer 1.4 times as fast as with the original.
 */

/** The most bytes of one read, and of one turn: two batches of packets, 0.2 ms of work. */
export const LONGEST_READ = 128 * 1024;
/** The same beside a conversation; and the most bytes of one read whose sink may be stuck. */
export const SHORT_READ = 16 * 1024;
/**
 * A sink that has taken this much is being read by somebody: it is more than the system buffers for one (4 MiB by
 * default). Before, it may be full at any moment and stay so, and what was read last is held in memory until then.
 */
const PROOF = 8 * 1024 * 1024;
/** How many connections may do long reads on credit, before their sink has taken so much. */
const CREDITS = 16;
/** A sink that takes nothing for so long has to prove again that it is read, ms. */
const STUCK = 1000;
/** A connection whose reads are smaller than this on average is a conversation. */
const CONVERSATION = 4096;
/** How long after a conversation's last read others make room for it, ms. */
const PATIENCE = 20;

/** The connection that had a conversation last, and until when there is room for it. */
let conversation: object | undefined;
let until = 0;
let readSize = LONGEST_READ;
let credits = CREDITS;

/** How many bytes the source that was counted last may read next. */
export function nextReadSize(): number {
  return readSize;
}

/** One source's part in the turns. */
export class Turn {
  readonly #connection: object;
  #average = 0;
  /** Bytes read in this turn. */
  #read = 0;
  /** Bytes read since the sink was stuck. */
  #flowed = 0;
  #hasCredit = false;
  #lastRead = 0;

  /** @param connection any object that both directions of a connection share. */
  constructor(connection: object) {
    this.#connection = connection;
  }

  /**
   * Counts a read.
   *
   * @returns false if the source must wait for the next turn.
   */
  take(length: number): boolean {
    this.#average += (length - this.#average) / (this.#average === 0 ? 1 : 8);
    const now = performance.now();
    if (this.#average < CONVERSATION) {
      conversation = this.#connection;
      until = now + PATIENCE;
    }
    this.#lastRead = now;
    this.#read += length;
    this.#flowed += length;
    const most = now < until && conversation !== this.#connection ? SHORT_READ : LONGEST_READ;
    readSize = this.#mayReadLong(length) ? most : SHORT_READ;
    return this.#read < most;
  }

  /** To be called when the source has waited, for its turn or for its sink. */
  begin(): void {
    this.#read = 0;
    if (performance.now() - this.#lastRead >= STUCK) this.#flowed = 0;
  }

  /** Gives the credit back; to be called when the source is not read any more. */
  end(): void {
    if (this.#hasCredit) credits += 1;
    this.#hasCredit = false;
  }

  #mayReadLong(length: number): boolean {
    if (this.#flowed >= PROOF) {
      this.end();
      return true;
    }
    // Only who has more to read than a short read gives needs credit.
    if (!this.#hasCredit && length >= SHORT_READ && credits > 0) {
      credits -= 1;
      this.#hasCredit = true;
    }
    return this.#hasCredit;
  }
}

let waiting: (() => void)[] = [];

/** Calls `goOn` in the next turn of the event loop, after everything that is due now. */
export function nextTurn(goOn: () => void): void {
  waiting.push(goOn);
  if (waiting.length === 1) setImmediate(begin);
}

function begin(): void {
  const due = waiting;
  waiting = [];
  for (const goOn of due) goOn();
}
