/** Drives a handshake's state machine over a socket. */
import type { Socket } from "node:net";
import { HandshakeError } from "../protocol/errors.ts";
import type { ClientHandshake, ServerHandshake } from "../protocol/handshake.ts";
import type { SessionKeys } from "../protocol/key-schedule.ts";
import type { Secret } from "../protocol/secret.ts";

/**
 * Feeds what the socket receives to `step` until it returns a result. Bytes that `step` left are put back, and the
 * socket is left paused.
 *
 * @throws HandshakeError `ERR_SPIPED_HANDSHAKE_EOF` if the peer closes or resets the connection first (which of the two
 * is an accident of timing); what the socket was destroyed with; whatever `step` throws.
 */
function feed<Result>(
  socket: Socket,
  step: (bytes: Uint8Array) => { consumed: number; result?: Result | undefined },
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
        new HandshakeError("ERR_SPIPED_HANDSHAKE_EOF", "peer closed the connection during the handshake", {
          cause,
        }),
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

/** Handshakes as the side that opened the connection. */
export async function handshakeAsClient(socket: Socket, handshake: ClientHandshake): Promise<SessionKeys> {
  try {
    socket.write(handshake.nonce);
    return await feed(socket, (bytes) => {
      const { consumed, send, session } = handshake.receive(bytes);
      if (send !== undefined) socket.write(send);
      return { consumed, result: session };
    });
  } finally {
    handshake.destroy();
  }
}

/**
 * Handshakes as the side that accepted the connection, up to the point where the client has proved that it holds
 * a key. What is left to do is `handshake.respond()`.
 *
 * @returns the secret that the client holds.
 */
export function verifyClient(socket: Socket, handshake: ServerHandshake): Promise<Secret> {
  socket.write(handshake.nonce);
  return feed(socket, (bytes) => {
    const { consumed, verified } = handshake.receive(bytes);
    return { consumed, result: verified };
  });
}
