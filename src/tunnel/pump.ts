/**
 * One direction of a pipe (Tarsnap's `proto_pipe`): reads from one socket, encrypts or decrypts, writes to the other.
 *
 * At most one converted read is in flight: the source is not read until the sink has accepted it. So a slow receiver
 * slows its sender and does not increase memory use. Reads are short for all but a few connections until the sink's
 * peer is known to read.
 */
import type { Socket } from "node:net";
import { confirmEof } from "../net/confirm-eof.ts";
import { attachReader, writeErrorOf } from "../net/direct-read.ts";
import { onNextIteration, ReadBudget } from "../net/fairness.ts";
import { acquireBuffer, releaseBuffer } from "./buffer-pool.ts";

/** Encryption or decryption of one direction. */
export interface Transform {
  /** Converts `input` (at most `MAX_READ_BYTES`) into `output`. Returns the number of bytes written. */
  convert(input: Uint8Array, output: Uint8Array): number;
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
  /** Buffers that the sink has not accepted yet, in order: one, unless the source had buffered data. */
  const written: Buffer[] = [];
  let waiting = false;
  let stopped = false;
  const budget = new ReadBudget(connection);
  const resume = () => {
    budget.begin();
    if (!stopped) source.resume();
  };

  const onRead = (chunk: Buffer) => {
    const buffer = acquireBuffer(chunk.length);
    const length = transform.convert(chunk, buffer);
    if (length === 0) {
      releaseBuffer(buffer);
    } else {
      written.push(buffer);
      sink.write(buffer.subarray(0, length), onWritten);
      waiting = sink.writableLength > 0;
    }
    fail(transform.failure(false));
    const more = budget.take(chunk.length);
    if (waiting) return false;
    if (more) return true;
    onNextIteration(resume);
    return false;
  };
  const onWritten = () => {
    releaseBuffer(written.shift()!);
    if (!waiting || written.length > 0) return;
    waiting = false;
    resume();
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
