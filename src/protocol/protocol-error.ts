/** Errors of the protocol. Each has a stable `code`; none ever carries key material or payload. */
import { SpipedError } from "../errors.ts";

/** Why a handshake ended without session keys. */
export type HandshakeErrorCode =
  | "ERR_SPIPED_HANDSHAKE_MAC"
  | "ERR_SPIPED_HANDSHAKE_RANGE"
  | "ERR_SPIPED_HANDSHAKE_WEAK"
  | "ERR_SPIPED_HANDSHAKE_EOF"
  | "ERR_SPIPED_HANDSHAKE_TIMEOUT";

/** What a peer sends in a handshake: its nonce, then the proof that it holds the key. */
export type HandshakePart = "nonce" | "proof";

/** The peer did not prove knowledge of the key, or sent a value that must be refused (sections 1.3 to 1.5). */
export class HandshakeError extends SpipedError {
  declare readonly code: HandshakeErrorCode;
  /** What had not arrived from the peer, or not all of it, when it closed the connection or the time was up. */
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

/** Why a stream of packets was refused. */
export type PacketErrorCode = "ERR_SPIPED_BAD_MAC" | "ERR_SPIPED_BAD_LENGTH" | "ERR_SPIPED_TRUNCATED";

/** A packet was forged, damaged, out of order, malformed or cut short (section 1.8). */
export class PacketError extends SpipedError {
  declare readonly code: PacketErrorCode;
  /** Number of the packet at fault, counted from 0 in its direction. */
  readonly packetNumber: bigint;

  constructor(code: PacketErrorCode, packetNumber: bigint, message: string) {
    super(code, message);
    this.packetNumber = packetNumber;
  }
}
