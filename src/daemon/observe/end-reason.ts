/** Why a connection ended, in the words of the log. */
import { SpipedError } from "../../errors.ts";
import { ConnectError } from "../../net/connect-error.ts";
import { systemErrorText } from "../../net/system-error.ts";
import {
  HandshakeError,
  type HandshakeErrorCode,
  PacketError,
  type PacketErrorCode,
} from "../../protocol/protocol-error.ts";
import { BrokenPipeError } from "../../tunnel/tunnel-error.ts";

/** A client was turned away, or left, before it was connected; the message is the reason. */
export class RefusedError extends SpipedError {
  constructor(reason: string) {
    super("ERR_SPIPED_REFUSED", reason);
  }
}

const HANDSHAKE: Record<HandshakeErrorCode, string> = {
  ERR_SPIPED_HANDSHAKE_MAC: "wrong key",
  ERR_SPIPED_HANDSHAKE_RANGE: "value out of range",
  ERR_SPIPED_HANDSHAKE_WEAK: "peer offers no forward secrecy",
  ERR_SPIPED_HANDSHAKE_EOF: "peer closed",
  ERR_SPIPED_HANDSHAKE_TIMEOUT: "timeout",
};

const PACKET: Record<PacketErrorCode, string> = {
  ERR_SPIPED_BAD_MAC: "bad MAC at packet",
  ERR_SPIPED_BAD_LENGTH: "bad length in packet",
  ERR_SPIPED_TRUNCATED: "stream cut inside packet",
};

const SYSTEM: Record<string, string> = {
  ECONNREFUSED: "refused",
  ECONNRESET: "reset",
  EPIPE: "reset",
  ETIMEDOUT: "timeout",
  ENOENT: "no such socket",
};

/** One line that says why, such as `target: refused` or `peer: bad MAC at packet 7`. */
export function reasonFor(error: unknown): string {
  if (error instanceof HandshakeError) return `handshake: ${HANDSHAKE[error.code]}`;
  if (error instanceof PacketError) return `peer: ${PACKET[error.code]} ${error.packetNumber}`;
  if (error instanceof ConnectError) {
    return `target: ${error.code === "ERR_SPIPED_CONNECT_TIMEOUT" ? "timeout" : describe(error.cause)}`;
  }
  if (error instanceof BrokenPipeError)
    return `${error.side === "wire" ? "peer" : "plain side"}: ${describe(error.cause)}`;
  return describe(error);
}

/** A reason without its numbers, for counting. */
export function reasonKind(reason: string): string {
  return reason.replace(/ \d.*$/, "");
}

function describe(error: unknown): string {
  if (!(error instanceof Error)) return "closed without an end";
  const code = "code" in error ? String(error.code) : "";
  return SYSTEM[code] ?? systemErrorText(error);
}
