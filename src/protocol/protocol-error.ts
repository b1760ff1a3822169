/** Protocol errors. Each has a stable `code`; none contains key material or payload. */
import { SpipedError } from "../errors.ts";

/** Why a handshake ended without session keys. */
export type HandshakeErrorCode =
  | "ERR_SPIPED_HANDSHAKE_MAC"
  | "ERR_SPIPED_HANDSHAKE_RANGE"
  | "ERR_SPIPED_HANDSHAKE_WEAK"
  | "ERR_SPIPED_HANDSHAKE_EOF"
  | "ERR_SPIPED_HANDSHAKE_TIMEOUT";

/** Parts of a peer's handshake: its nonce, then its Diffie-Hellman value with a MAC made with the key (`proof`). */
export type HandshakePart = "nonce" | "proof";

/** The peer did not prove that it holds the key, or sent a value that must be rejected (sections 1.3 to 1.6). */
export class HandshakeError extends SpipedError {
  declare readonly code: HandshakeErrorCode;
  /** The part that had not arrived completely when the peer closed the connection or the timeout expired. */
  readonly awaiting: HandshakePart | undefined;

  constructor(
    code: HandshakeErrorCode,
    message: string,
    { awaiting, ...options }: ErrorOptions & { awaiting?: HandshakePart | undefined } = {},
  ) {
    super(code, message, options);
    this.awaiting = awaiting;
  }
}

/** Why a stream of packets was rejected. */
export type PacketErrorCode = "ERR_SPIPED_BAD_MAC" | "ERR_SPIPED_BAD_LENGTH" | "ERR_SPIPED_TRUNCATED";

/** A packet was forged, damaged, out of order, malformed or truncated (section 1.8). */
export class PacketError extends SpipedError {
  declare readonly code: PacketErrorCode;
  /** Number of the invalid packet, counted from 0 in its direction. */
  readonly packetNumber: bigint;

  constructor(code: PacketErrorCode, packetNumber: bigint, message: string) {
    super(code, message);
    this.packetNumber = packetNumber;
  }
}
