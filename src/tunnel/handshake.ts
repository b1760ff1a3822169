/** Drives a client's handshake over a socket. */
import type { Socket } from "node:net";
import type { ClientHandshake } from "../protocol/handshake.ts";
import type { SessionKeys } from "../protocol/key-schedule.ts";
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
