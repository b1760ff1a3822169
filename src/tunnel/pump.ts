/**
 * One direction of a pipe (Tarsnap's `proto_pipe`): reads from one socket, encrypts or decrypts, writes to the other.
 *
 * At most one converted read is in flight: the source is not read until the sink has accepted it. So a slow receiver
 * slows its sender and does not increase memory use. Reads are short for all but a few connections until the sink's
 * peer is known to read.
 */
import type { Socket } from "node:net";
import { confirmEof } from "../net/confirm-eof.ts";
import { attachReader, directIo, writeErrorOf } from "../net/direct-read.ts";
import { onNextIteration, ReadBudget } from "../net/fairness.ts";
import type { Workspace } from "../protocol/engine/engine.ts";
import type { Output } from "../protocol/engine/output-pool.ts";
import { acquireBuffer, releaseBuffer } from "./buffer-pool.ts";

/** Encryption or decryption of one direction. */
export interface Transform {
  readonly workspace: Workspace;
  /** Converts the first `length` bytes of the workspace's read buffer into `output`. Returns the number of bytes written. */
  convert(length: number, output: Output): number;
  /** Returns the error that makes the source's data invalid, if any; called after each `convert` and after its end. */
  failure(ended: boolean): Error | undefined;
}

/**
 * Transfers bytes from `source` to `sink` until the source ends, then half-closes the sink.
 *
 * @param connection - any object that both directions of a connection share.
 * @param onFinished - called when the half-close is complete, or with the error of `transform`. Not called for socket
 * errors.
 * @returns a function that stops the pump. If the sink is being half-closed, `onFinished` may still be called later.
 */
export function pump(
  source: Socket,
  sink: Socket,
  transform: Transform,
  connection: object,
  onFinished: (failure?: Error) => void,
): () => void {
  const { readBuffer, outputs } = transform.workspace;
  const direct = directIo(sink);
  /** The output that is being written past the sink's queue. */
  let pending: Output | undefined;
  /** Number of writes in the sink's queue: one, unless the source had buffered data. */
  let queued = 0;
  let waiting = false;
  let reading = false;
  let stopped = false;
  const budget = new ReadBudget(connection);
  const resume = () => {
    budget.begin();
    if (!stopped) source.resume();
  };

  const onRead = (buffer: Uint8Array, length: number) => {
    reading = true;
    // Socket reads land in the engine's memory; buffered data does not.
    if (buffer !== readBuffer) readBuffer.set(length === buffer.length ? buffer : buffer.subarray(0, length));
    const output = outputs.acquire(length) ?? outputs.reserved;
    const size = transform.convert(length, output);
    if (size > 0) write(output, size);
    else if (output !== outputs.reserved) outputs.release(output);
    fail(transform.failure(false));
    const more = budget.take(length);
    reading = false;
    if (waiting) return false;
    if (more) return true;
    onNextIteration(resume);
    return false;
  };
  const write = (output: Output, size: number) => {
    if (output === outputs.reserved) {
      const buffer = acquireBuffer(size);
      output.bytes.copy(buffer, 0, 0, size);
      enqueue(buffer.subarray(0, size), () => releaseBuffer(buffer));
    } else if (direct?.canWriteNow === true) {
      waiting = true;
      pending = output;
      direct.writeNow(output.first(size), onWritten);
    } else {
      enqueue(output.first(size), () => outputs.release(output));
    }
  };
  const onWritten = (error?: Error | null) => {
    outputs.release(pending!);
    pending = undefined;
    if (!error) settle();
  };
  /** Continues reading once the sink has accepted everything. */
  const settle = () => {
    if (!waiting || pending !== undefined || queued > 0) return;
    waiting = false;
    if (!reading) resume();
  };
  const enqueue = (bytes: Buffer, release: () => void) => {
    queued += 1;
    sink.write(bytes, () => {
      release();
      queued -= 1;
      settle();
    });
    waiting = sink.writableLength > 0;
  };
  const onEnd = () => {
    // After a reset, an incomplete packet is not a truncated stream: the reset itself is reported.
    if (stopped || writeErrorOf(source) !== undefined) return;
    budget.end();
    const failure = transform.failure(true);
    confirmEof(source, () => (failure === undefined ? endSink() : fail(failure)));
  };
  const endSink = () => {
    if (!stopped) sink.end(() => onFinished());
  };
  const fail = (failure: Error | undefined) => {
    if (failure === undefined || stopped) return;
    stop();
    onFinished(failure);
  };
  const stop = () => {
    stopped = true;
    budget.end();
    detachReader();
    source.off("end", onEnd);
  };

  const detachReader = attachReader(source, onRead);
  // The source may have ended before this listener is added: a client that disconnected while queued for a slot.
  if (source.readableEnded) setImmediate(onEnd);
  else source.on("end", onEnd);
  source.resume();
  return stop;
}
