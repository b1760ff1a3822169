/** Reading from a socket what a state machine asks for, before the pumps take it over. */
import type { Socket } from "node:net";

/** What became of the bytes that a step was given. */
export interface Step<Result> {
  /** How many of them it has used. */
  readonly consumed: number;
  /** Present when nothing more is needed. */
  readonly result?: Result | undefined;
}

/**
 * Feeds what the socket receives to `step` until it returns a result. Bytes that `step` left are put back, and the
 * socket is left paused.
 *
 * @param endError makes the error for a peer that closes or resets the connection first (which of the two is an accident
 * of timing).
 * @throws what `endError` returns; what the socket was destroyed with; whatever `step` throws.
 */
export function feed<Result>(
  socket: Socket,
  step: (bytes: Buffer) => Step<Result>,
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
