/** Drives a client's handshake over a socket. */
import type { Socket } from "node:net";
import type { ClientHandshake } from "../protocol/handshake.ts";
import type { SessionKeys } from "../protocol/key-schedule.ts";
import { feed } from "./feed.ts";

/** What a client's handshake has done. */
export type HandshakeStep = "nonce sent" | "nonce received" | "proof sent" | "complete";

/**
 * Handshakes as the side that opened the connection.
 *
 * @param onStep called after each step.
 * @throws as `feed`.
 */
export async function handshakeAsClient(
  socket: Socket,
  handshake: ClientHandshake,
  onStep: (step: HandshakeStep) => void = () => {},
): Promise<SessionKeys> {
  try {
    socket.write(handshake.nonce);
    onStep("nonce sent");
    const receive = (bytes: Buffer) => {
      const { consumed, send, session } = handshake.receive(bytes);
      if (send !== undefined) {
        onStep("nonce received");
        socket.write(send);
        onStep("proof sent");
      }
      if (session !== undefined) onStep("complete");
      return { consumed, result: session };
    };
    return await feed(socket, receive, () => handshake.awaiting);
  } finally {
    handshake.destroy();
  }
}
