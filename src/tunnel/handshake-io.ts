/** Drives a client's handshake over a socket. */
import type { Socket } from "node:net";
import { feed } from "../net/read-until-parsed.ts";
import type { ClientHandshake } from "../protocol/handshake.ts";
import type { SessionKeys } from "../protocol/key-schedule.ts";
import { HandshakeError } from "../protocol/protocol-error.ts";

/** What a client's handshake has done. */
export type HandshakeStep = "nonce sent" | "nonce received" | "proof sent" | "complete";

/** The error of a handshake whose peer has closed or reset the connection. */
export function handshakeEnd(
  { awaiting }: Pick<ClientHandshake, "awaiting">,
  cause: Error | null,
): HandshakeError {
  const message = "peer closed the connection during the handshake; it may hold another key";
  return new HandshakeError("ERR_SPIPED_HANDSHAKE_EOF", message, { cause, awaiting });
}

/**
 * Handshakes as the side that opened the connection.
 *
 * @param onStep called after each step.
 * @throws HandshakeError, or what the socket was destroyed with.
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
    return await feed(socket, receive, (cause) => handshakeEnd(handshake, cause));
  } finally {
    handshake.destroy();
  }
}
