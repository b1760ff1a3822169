/** The reason that a connection closed, as logged. */
import { SpipedError } from "../../errors.ts";
import { ConnectError } from "../../net/connect-error.ts";
import { systemErrorText } from "../../net/system-error.ts";
import {
  HandshakeError,
  type HandshakeErrorCode,
  PacketError,
  type PacketErrorCode,
} from "../../protocol/protocol-error.ts";
import { ConnectionLostError } from "../../tunnel/tunnel-error.ts";

/** A client was rejected, or closed its connection, before data could flow; the message is the reason. */
export class RejectedError extends SpipedError {
  constructor(reason: string) {
    super("ERR_SPIPED_REFUSED", reason);
  }
}

const HANDSHAKE_REASONS: Record<HandshakeErrorCode, string> = {
  ERR_SPIPED_HANDSHAKE_MAC: "wrong key",
  ERR_SPIPED_HANDSHAKE_RANGE: "value out of range",
  ERR_SPIPED_HANDSHAKE_WEAK: "peer offers no forward secrecy",
  ERR_SPIPED_HANDSHAKE_EOF: "peer closed",
  ERR_SPIPED_HANDSHAKE_TIMEOUT: "timeout",
};

const PACKET_REASONS: Record<PacketErrorCode, string> = {
  ERR_SPIPED_BAD_MAC: "bad MAC at packet",
  ERR_SPIPED_BAD_LENGTH: "bad length in packet",
  ERR_SPIPED_TRUNCATED: "truncated in packet",
};

const SYSTEM_REASONS: Record<string, string> = {
  ECONNREFUSED: "refused",
  ECONNRESET: "reset",
  EPIPE: "reset",
  ETIMEDOUT: "timeout",
  ENOENT: "no such socket",
};

/** Returns the reason in one line, such as `target: refused` or `peer: bad MAC at packet 7`. */
export function reasonFor(error: unknown): string {
  if (error instanceof HandshakeError) return `handshake: ${HANDSHAKE_REASONS[error.code]}`;
  if (error instanceof PacketError) return `peer: ${PACKET_REASONS[error.code]} ${error.packetNumber}`;
  if (error instanceof ConnectError) {
    return `target: ${error.code === "ERR_SPIPED_CONNECT_TIMEOUT" ? "timeout" : describe(error.cause)}`;
  }
  if (error instanceof ConnectionLostError)
    return `${error.side === "wire" ? "peer" : "plaintext side"}: ${describe(error.cause)}`;
  return describe(error);
}

/** Returns a reason without its numbers, so that equal kinds are counted together. */
export function reasonKind(reason: string): string {
  return reason.replace(/ \(?\d.*$/, "");
}

function describe(error: unknown): string {
  if (!(error instanceof Error)) return "closed before end of stream";
  const code = "code" in error ? String(error.code) : "";
  return SYSTEM_REASONS[code] ?? systemErrorText(error);
}
