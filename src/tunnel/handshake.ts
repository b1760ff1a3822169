/** Drives a handshake's state machine over a socket. */
import type { Socket } from "node:net";
import type { ClientHandshake, ServerHandshake } from "../protocol/handshake.ts";
import type { SessionKeys } from "../protocol/key-schedule.ts";
import type { Secret } from "../protocol/secret.ts";
import { feed } from "./feed.ts";

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
