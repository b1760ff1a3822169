/** Runs a client's handshake over a socket. */
import type { Socket } from "node:net";
import { readUntilParsed } from "../net/read-until-parsed.ts";
import type { ClientHandshake } from "../protocol/handshake.ts";
import type { SessionKeys } from "../protocol/key-schedule.ts";
import { HandshakeError } from "../protocol/protocol-error.ts";

/** Last completed step of a client's handshake. */
export type HandshakeStep = "nonce sent" | "nonce received" | "proof sent" | "complete";

/** Returns the error for a peer that closed or reset the connection during the handshake. */
export function handshakeEofError(
  { awaiting }: Pick<ClientHandshake, "awaiting">,
  cause: Error | null,
): HandshakeError {
  const message = "peer closed the connection during the handshake; it may hold another key";
  return new HandshakeError("ERR_SPIPED_HANDSHAKE_EOF", message, { cause, awaiting });
}

/**
 * Performs the handshake as the client.
 *
 * @param onStep - called after each step.
 * @throws HandshakeError, or the error that the socket was destroyed with.
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
    return await readUntilParsed(socket, receive, (cause) => handshakeEofError(handshake, cause));
  } finally {
    handshake.destroy();
  }
}
