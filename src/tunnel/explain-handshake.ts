/** Explains failed handshakes to the operator of the client, as far as the cause is known. */
import type { HandshakeError, HandshakePart } from "../protocol/protocol-error.ts";

/** Client settings that may cause a handshake to fail. */
export interface ClientSetup {
  /** Whether `-f` was given. */
  readonly weak: boolean;
  /** Handshake timeout in ms. */
  readonly timeout: number;
}

/** Returns one line with the likely cause of a failed handshake of a client (`spipe`, `spiped -e`). */
export function explainClientHandshake(error: HandshakeError, setup: ClientSetup): string {
  const seconds = setup.timeout / 1000;
  switch (error.code) {
    case "ERR_SPIPED_HANDSHAKE_MAC":
      return "the peer's MAC is invalid: its key differs";
    case "ERR_SPIPED_HANDSHAKE_RANGE":
      return "the peer's Diffie-Hellman value is out of range: not a correct spiped implementation";
    case "ERR_SPIPED_HANDSHAKE_WEAK":
      return "the peer uses -f, which -g rejects";
    case "ERR_SPIPED_HANDSHAKE_EOF":
      return explainEof(error.awaiting, setup);
    case "ERR_SPIPED_HANDSHAKE_TIMEOUT":
      return error.awaiting === "nonce"
        ? `the peer sent no nonce within ${seconds} s: check that it is a spiped -d`
        : `the peer sent no proof within ${seconds} s: its target does not answer, or the peer is overloaded`;
  }
}

function explainEof(awaiting: HandshakePart | undefined, { weak }: ClientSetup): string {
  if (awaiting === "nonce") {
    return "the peer closed the connection before sending its nonce: check that it is a spiped -d and allows this address";
  }
  const reasons = [
    "its key differs",
    ...(weak ? ["it uses -g, which rejects -f"] : []),
    "it cannot connect to its target",
  ];
  return `the peer closed the connection after our proof: probably ${reasons.join(", or ")}`;
}
