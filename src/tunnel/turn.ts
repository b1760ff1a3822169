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
/** The same beside a conversation. */
const SHORT_READ = 16 * 1024;
/** A connection whose reads are smaller than this on average is a conversation. */
const CONVERSATION = 4096;
/** How long after a conversation's last read others make room for it, ms. */
const PATIENCE = 20;

/** The connection that had a conversation last, and until when there is room for it. */
let conversation: object | undefined;
let until = 0;
let readSize = LONGEST_READ;

/** How many bytes the source that has just read may read next. */
export function nextReadSize(): number {
  return readSize;
}

/** One source's part in the turns. */
export class Turn {
  readonly #connection: object;
  #average = 0;
  #read = 0;

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
    readSize = now < until && conversation !== this.#connection ? SHORT_READ : LONGEST_READ;
    this.#read += length;
    return this.#read < readSize;
  }

  /** To be called when the source has waited, for whatever reason. */
  begin(): void {
    this.#read = 0;
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
