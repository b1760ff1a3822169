/**
 * One direction of a pipe (Tarsnap's `proto_pipe`): read from one socket, seal or open, write to the other.
 *
 * At most one converted read is in flight: while the sink has not taken it, the source is not read. So a slow
 * reader slows its sender, and never grows our memory; and reads are short for all but a few connections until it is
 * known that their sink is read at all.
 */
import type { Socket } from "node:net";
import { confirmEnd } from "../net/confirm-end.ts";
import { DirectSocket, takeReads } from "../net/direct-read.ts";
import { nextTurn, Turn } from "../net/fairness.ts";
import { giveBuffer, takeBuffer } from "./buffer-pool.ts";

/** How bytes change on their way. */
export interface Converter {
  /** Writes what `input` (up to `LONGEST_READ` bytes) becomes to the start of `output`; returns how many bytes that is. */
  convert(input: Uint8Array, output: Uint8Array): number;
  /** Why the source can't be trusted any more, asked after each `convert`, and once it has ended. */
  failure(ended: boolean): Error | undefined;
}

/**
 * Starts to move bytes from `source` to `sink` and goes on until the source's end, which is passed on as a half-close.
 *
 * @param connection any object that both directions of a connection share.
 * @param finished called when the half-close is done, or with the converter's failure. Errors of the sockets are not
 * reported here.
 * @returns a function that stops the pump; `finished` may still be called after it if the sink was being ended.
 */
export function pump(
  source: Socket,
  sink: Socket,
  converter: Converter,
  connection: object,
  finished: (failure?: Error) => void,
): () => void {
  /** Buffers that the sink has not taken yet, in order: one, unless the source had something buffered. */
  const written: Buffer[] = [];
  let waiting = false;
  let stopped = false;
  const turn = new Turn(connection);
  const goOn = () => {
    turn.begin();
    if (!stopped) source.resume();
  };

  const onRead = (chunk: Buffer) => {
    const buffer = takeBuffer(chunk.length);
    const length = converter.convert(chunk, buffer);
    if (length === 0) {
      giveBuffer(buffer);
    } else {
      written.push(buffer);
      sink.write(buffer.subarray(0, length), onWritten);
      waiting = sink.writableLength > 0;
    }
    fail(converter.failure(false));
    const more = turn.take(chunk.length);
    if (waiting) return false;
    if (more) return true;
    nextTurn(goOn);
    return false;
  };
  const onWritten = () => {
    giveBuffer(written.shift()!);
    if (!waiting || written.length > 0) return;
    waiting = false;
    goOn();
  };
  const onEnd = () => {
    // What a reset has cut is no truncated stream.
    if (stopped || (source instanceof DirectSocket && source.writeError !== undefined)) return;
    turn.end();
    const failure = converter.failure(true);
    if (failure === undefined) confirmEnd(source, endSink);
    else fail(failure);
  };
  const endSink = () => {
    if (!stopped) sink.end(() => finished());
  };
  const fail = (failure: Error | undefined) => {
    if (failure === undefined) return;
    stop();
    finished(failure);
  };
  const stop = () => {
    stopped = true;
    turn.end();
    giveReadsBack();
    source.off("end", onEnd);
  };

  const giveReadsBack = takeReads(source, onRead);
  // A source that was read before may have ended when nobody listened: a client that left while it waited for its slot.
  if (source.readableEnded) setImmediate(onEnd);
  else source.on("end", onEnd);
  source.resume();
  return stop;
}
