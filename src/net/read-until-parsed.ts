/** Passes received bytes to a state machine until it is complete, before the pumps start. */
import type { Socket } from "node:net";

/** Result of one parsing step. */
export interface ParseResult<Result> {
  /** Number of bytes used. */
  readonly consumed: number;
  /** The final result; undefined if more bytes are needed. */
  readonly result?: Result | undefined;
}

/**
 * Passes received bytes to `step` until it returns a result. Puts unused bytes back and leaves the socket paused.
 *
 * @param endError - returns the error for a peer that closes or resets the connection first (which of the two depends on
 * timing).
 * @throws the error from `endError` or `step`, or the one that the socket was destroyed with.
 */
export function readUntilParsed<Result>(
  socket: Socket,
  step: (bytes: Buffer) => ParseResult<Result>,
  endError: (cause: Error | null) => Error,
): Promise<Result> {
  return new Promise((resolve, reject) => {
    const stop = () => {
      socket.off("data", onData);
      socket.off("end", onEnd);
      socket.off("close", onEnd);
      socket.pause();
    };
    const onEnd = () => {
      stop();
      const cause: NodeJS.ErrnoException | null = socket.errored;
      if (cause !== null && cause.syscall === undefined) {
        reject(cause);
        return;
      }
      reject(endError(cause));
    };
    const onData = (chunk: Buffer) => {
      try {
        const { consumed, result } = step(chunk);
        if (result === undefined) return;
        stop();
        if (consumed < chunk.length) socket.unshift(chunk.subarray(consumed));
        resolve(result);
      } catch (error) {
        stop();
        reject(error);
      }
    };
    if (socket.destroyed) {
      onEnd();
      return;
    }
    socket.on("data", onData);
    socket.on("end", onEnd);
    socket.on("close", onEnd);
    socket.resume();
  });
}
