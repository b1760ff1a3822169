/** Reading from a socket what a state machine asks for, before the pumps take it over. */
import type { Socket } from "node:net";
import { HandshakeError, type HandshakePart } from "../protocol/errors.ts";

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
 * @param awaiting what a handshake waits for, asked if the peer closes the connection.
 * @throws HandshakeError `ERR_SPIPED_HANDSHAKE_EOF` if the peer closes or resets the connection first (which of the two
 * is an accident of timing); what the socket was destroyed with; whatever `step` throws.
 */
export function feed<Result>(
  socket: Socket,
  step: (bytes: Buffer) => Step<Result>,
  awaiting?: () => HandshakePart | undefined,
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
      reject(
        new HandshakeError(
          "ERR_SPIPED_HANDSHAKE_EOF",
          "peer closed the connection during the handshake; it may hold another key",
          { cause, awaiting: awaiting?.() },
        ),
      );
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
