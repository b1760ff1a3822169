/**
 * Fairness among connections. A socket that always has more to read would be read up to 32 times before the event loop
 * looks at any other; with 64 KiB to seal each time that is milliseconds. So each source reads for one turn of the loop
 * only so much, and goes on in the next.
 */

/** Bytes that a source may read in one turn: about 0.2 ms of work. */
export const TURN_SIZE = 64 * 1024;

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
