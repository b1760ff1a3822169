/**
 * Checks that what the process shares among connections has been given back: buffers, outputs, and credits for long
 * reads. Each check takes all that there is and returns it.
 */
import { MAX_READ_BYTES, nextReadSize, ReadBudget, SHORT_READ_BYTES } from "../../src/net/fairness.ts";
import type { Engine } from "../../src/protocol/engine/engine.ts";
import type { Output, OutputPool } from "../../src/protocol/engine/output-pool.ts";
import { sealedSize } from "../../src/protocol/packet.ts";
import { acquireBuffer, POOLED_BUFFER_BYTES, releaseBuffer } from "../../src/tunnel/buffer-pool.ts";

/** Numbers of the engine's outputs, by the size of what they are for. */
const OUTPUTS = [
  { size: 16 * 1024, count: 32 },
  { size: MAX_READ_BYTES, count: 8 },
];
const CREDITS = 16;
/** Bytes of a buffer for short reads. */
const SMALL_BUFFER_BYTES = sealedSize(SHORT_READ_BYTES);
/** Buffers of a size that are kept. */
const MAX_POOLED = 32;

/** Takes outputs, the small ones first, as other connections would. Returns a function that gives them back. */
export function holdOutputs(pool: OutputPool, count: number): () => void {
  const held: Output[] = [];
  for (const { size } of OUTPUTS) {
    while (held.length < count) {
      const output = pool.acquire(size);
      if (output === undefined) break;
      held.push(output);
    }
  }
  return () => {
    for (const output of held) pool.release(output);
  };
}

/** Counts the buffers that the pool allocates, which all have one of two sizes. */
const allocated = new Map<number, number>();
const allocate = Buffer.allocUnsafeSlow.bind(Buffer);
Buffer.allocUnsafeSlow = (size: number) => {
  allocated.set(size, (allocated.get(size) ?? 0) + 1);
  return allocate(size);
};

/** Returns what is wrong with the pools when no connection exists; undefined if nothing is. */
export function findLeak(engine: Engine): string | undefined {
  return (
    findBufferLeak(1) ?? findBufferLeak(POOLED_BUFFER_BYTES) ?? findOutputLeak(engine) ?? findCreditLeak()
  );
}

function findBufferLeak(size: number): string | undefined {
  const count = () => (allocated.get(SMALL_BUFFER_BYTES) ?? 0) + (allocated.get(POOLED_BUFFER_BYTES) ?? 0);
  const taken: Buffer[] = [];
  const start = count();
  // The last one taken is new.
  while (count() === start) taken.push(acquireBuffer(size));
  const { length } = taken[0]!;
  const before = allocated.get(length)! - 1;
  for (const buffer of taken) releaseBuffer(buffer);
  if (new Set(taken).size < taken.length) return `a buffer of ${length} bytes was released twice`;
  const left = Math.min(before, MAX_POOLED) - (taken.length - 1);
  return left > 0 ? `${left} buffers of ${length} bytes were not released` : undefined;
}

function findOutputLeak(engine: Engine): string | undefined {
  const { outputs } = engine.workspace;
  for (const { size, count } of OUTPUTS) {
    const free: Output[] = [];
    for (let output = outputs.acquire(size); output !== undefined; output = outputs.acquire(size)) {
      free.push(output);
      if (free.length > count) break;
    }
    for (const output of free) outputs.release(output);
    if (new Set(free).size !== count)
      return `${new Set(free).size} of ${count} outputs for ${size} bytes are free`;
    if (free.length !== count) return `an output for ${size} bytes was released twice`;
  }
  return undefined;
}

function findCreditLeak(): string | undefined {
  const budgets: ReadBudget[] = [];
  do {
    const budget = new ReadBudget({});
    budgets.push(budget);
    budget.take(MAX_READ_BYTES);
  } while (nextReadSize() === MAX_READ_BYTES && budgets.length <= CREDITS);
  for (const budget of budgets) budget.end();
  const credits = budgets.length - 1;
  return credits === CREDITS ? undefined : `${credits} of ${CREDITS} credits for long reads are free`;
}

/** Forgets the interactive connections of a world before, once the clock has moved on. */
export function forgetInteractive(moveOn: () => void): void {
  const budget = new ReadBudget({});
  budget.take(MAX_READ_BYTES);
  moveOn();
  budget.take(MAX_READ_BYTES);
  budget.end();
}
