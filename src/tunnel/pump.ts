/**
 * One direction of a pipe (Tarsnap's `proto_pipe`): reads from one socket, encrypts or decrypts, writes to the other.
 *
 * At most one converted read is in flight: the source is not read until the sink has accepted it. So a slow receiver
 * slows its sender and does not increase memory use. Reads are short for all but a few connections until the sink's
 * peer is known to read.
 */
import type { Socket } from "node:net";
import { confirmEof } from "../net/confirm-eof.ts";
import { attachReader, type DirectIo, directIo, writeErrorOf } from "../net/direct-read.ts";
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
 * Transfers bytes from a source to a sink until the source ends, then half-closes the sink. A class, because closures
 * would take more memory per idle connection.
 */
export class Pump {
  readonly #source: Socket;
  readonly #sink: Socket;
  readonly #transform: Transform;
  readonly #onFinished: (failure?: Error) => void;
  readonly #budget: ReadBudget;
  readonly #detachReader: () => void;
  /** The sink, if it can be written to directly and nothing that was written before the pump can be queued. */
  #direct: DirectIo | undefined;
  /** The output that is being written past the sink's queue. */
  #pending: Output | undefined;
  /** Number of writes in the sink's queue: one, unless the source had buffered data. */
  #queued = 0;
  #isWaiting = false;
  #isReading = false;
  #isStopped = false;

  /**
   * Starts the transfer.
   *
   * @param connection - any object that both directions of a connection share.
   * @param onFinished - called when the half-close is complete, or with the error of `transform`. Not called for socket
   * errors.
   */
  constructor(
    source: Socket,
    sink: Socket,
    transform: Transform,
    connection: object,
    onFinished: (failure?: Error) => void,
  ) {
    this.#source = source;
    this.#sink = sink;
    this.#transform = transform;
    this.#onFinished = onFinished;
    this.#budget = new ReadBudget(connection);
    this.#detachReader = attachReader(source, (buffer, length) => this.#read(buffer, length));
    // The source may have ended before this listener is added: a client that disconnected while queued for a slot.
    if (source.readableEnded) setImmediate(this.#onEnd);
    else source.on("end", this.#onEnd);
    source.resume();
  }

  /** Stops the transfer. If the sink is being half-closed, `onFinished` may still be called later. */
  stop(): void {
    this.#isStopped = true;
    this.#budget.end();
    this.#detachReader();
    this.#source.off("end", this.#onEnd);
  }

  #read(buffer: Uint8Array, length: number): boolean {
    // The rest of a chunk whose first part was invalid.
    if (this.#isStopped) return false;
    const transform = this.#transform;
    const { readBuffer, outputs } = transform.workspace;
    this.#isReading = true;
    // Socket reads land in the engine's memory; buffered data does not.
    if (buffer !== readBuffer) readBuffer.set(length === buffer.length ? buffer : buffer.subarray(0, length));
    const output = outputs.acquire(length) ?? outputs.reserved;
    const size = transform.convert(length, output);
    if (size > 0) this.#write(output, size);
    else if (output !== outputs.reserved) outputs.release(output);
    this.#fail(transform.failure(false));
    // A stopped budget must not take a credit, which it would never return.
    if (this.#isStopped) return false;
    const more = this.#budget.take(length);
    this.#isReading = false;
    if (this.#isWaiting) return false;
    if (more) return true;
    onNextIteration(() => this.#resume());
    return false;
  }

  #write(output: Output, size: number): void {
    const { outputs } = this.#transform.workspace;
    if (output === outputs.reserved) {
      const buffer = acquireBuffer(size);
      output.bytes.copy(buffer, 0, 0, size);
      this.#enqueue(buffer.subarray(0, size), () => releaseBuffer(buffer));
      return;
    }
    const direct = this.#directSink();
    if (direct === undefined || this.#queued > 0 || this.#pending !== undefined) {
      this.#enqueue(output.first(size), () => outputs.release(output));
      return;
    }
    this.#isWaiting = true;
    this.#pending = output;
    direct.writeNow(output.first(size), this.#onWritten);
  }

  /** Returns the sink if `writeNow` may be called as soon as nothing of this pump is queued or pending. */
  #directSink(): DirectIo | undefined {
    // Asked once only, because asking takes a while: what was written before the pump may still be queued.
    if (this.#direct === undefined) {
      const direct = directIo(this.#sink);
      if (direct?.canWriteNow === true) this.#direct = direct;
    }
    return this.#direct;
  }

  readonly #onWritten = (error?: Error | null) => {
    this.#transform.workspace.outputs.release(this.#pending!);
    this.#pending = undefined;
    if (!error) this.#settle();
  };

  #enqueue(bytes: Buffer, release: () => void): void {
    this.#queued += 1;
    this.#sink.write(bytes, () => {
      release();
      this.#queued -= 1;
      this.#settle();
    });
    this.#isWaiting = this.#sink.writableLength > 0;
  }

  /** Resumes reading once the sink has accepted everything. */
  #settle(): void {
    if (!this.#isWaiting || this.#pending !== undefined || this.#queued > 0) return;
    this.#isWaiting = false;
    if (!this.#isReading) this.#resume();
  }

  #resume(): void {
    this.#budget.begin();
    if (!this.#isStopped) this.#source.resume();
  }

  readonly #onEnd = () => {
    const source = this.#source;
    // After a reset, an incomplete packet is not a truncated stream: the reset itself is reported.
    if (this.#isStopped || writeErrorOf(source) !== undefined) return;
    this.#budget.end();
    const failure = this.#transform.failure(true);
    confirmEof(source, () => {
      if (failure !== undefined) this.#fail(failure);
      else if (!this.#isStopped) this.#endSink();
    });
  };

  #endSink(): void {
    this.#sink.end((error?: Error | null) => {
      // If the sink is destroyed before it has ended, its 'close' event reports that.
      if (!error) this.#onFinished();
    });
  }

  #fail(failure: Error | undefined): void {
    if (failure === undefined || this.#isStopped) return;
    this.stop();
    this.#onFinished(failure);
  }
}
