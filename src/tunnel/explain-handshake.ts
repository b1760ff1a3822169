/** Explains failed handshakes to the operator of the client's side, as far as the cause can be known. */
import type { HandshakeError, HandshakePart } from "../protocol/protocol-error.ts";

/** How the client was set up. */
export interface ClientSetup {
  /** Whether `-f` was given. */
  readonly weak: boolean;
  /** ms */
  readonly timeout: number;
}

/** Returns the likely cause of a handshake that failed at a client (`spipe`, `spiped -e`), in one line. */
export function explainClientHandshake(error: HandshakeError, setup: ClientSetup): string {
  const seconds = setup.timeout / 1000;
  switch (error.code) {
    case "ERR_SPIPED_HANDSHAKE_MAC":
      return "the peer's proof is wrong: another key";
    case "ERR_SPIPED_HANDSHAKE_RANGE":
      return "the peer's Diffie-Hellman value is out of range: it is no correct spiped";
    case "ERR_SPIPED_HANDSHAKE_WEAK":
      return "the peer uses -f and -g forbids it";
    case "ERR_SPIPED_HANDSHAKE_EOF":
      return explainEnd(error.awaiting, setup);
    case "ERR_SPIPED_HANDSHAKE_TIMEOUT":
      return error.awaiting === "nonce"
        ? `the peer sent no nonce within ${seconds} s: is it a spiped -d?`
        : `the peer sent no proof within ${seconds} s: its target does not answer, or the peer is overloaded`;
  }
}

function explainEnd(awaiting: HandshakePart | undefined, { weak }: ClientSetup): string {
  if (awaiting === "nonce") {
    return "the peer closed the connection before sending its nonce: is it a spiped -d, and does it allow our address?";
  }
  const reasons = [
    "another key",
    ...(weak ? ["it uses -g, which forbids our -f"] : []),
    "its target refuses",
  ];
  return `the peer closed the connection after our proof: most often ${reasons.join(", or ")}`;
}
