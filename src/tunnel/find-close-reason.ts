/** Finds the reason for which a connection closed from the error that ended it. */
import { ConnectError } from "../net/connect-error.ts";
import { ProxyHeaderError, type ProxyHeaderProblem } from "../net/proxy-protocol.ts";
import { ResolveError } from "../net/resolve.ts";
import { systemErrorKind, systemErrorText } from "../net/system-error.ts";
import {
  HandshakeError,
  type HandshakeErrorCode,
  PacketError,
  type PacketErrorCode,
} from "../protocol/protocol-error.ts";
import { type CloseReason, type Closing, closingFor } from "./close-reason.ts";
import { ConnectionLostError, IdleError, QueueTimeoutError, RejectedError } from "./tunnel-error.ts";

const HANDSHAKE_REASONS = {
  ERR_SPIPED_HANDSHAKE_MAC: "wrong-key",
  ERR_SPIPED_HANDSHAKE_RANGE: "value-out-of-range",
  ERR_SPIPED_HANDSHAKE_WEAK: "no-forward-secrecy",
  ERR_SPIPED_HANDSHAKE_EOF: "handshake-peer-closed",
  ERR_SPIPED_HANDSHAKE_TIMEOUT: "handshake-timeout",
} as const satisfies Record<HandshakeErrorCode, CloseReason>;

/** Reasons whose cause is a HandshakeError. */
export type HandshakeReason = (typeof HANDSHAKE_REASONS)[HandshakeErrorCode];

const PACKET_REASONS: Record<PacketErrorCode, CloseReason> = {
  ERR_SPIPED_BAD_MAC: "packet-forged",
  ERR_SPIPED_BAD_LENGTH: "packet-bad-length",
  ERR_SPIPED_TRUNCATED: "packet-truncated",
};

const PROXY_HEADER_REASONS: Record<ProxyHeaderProblem, CloseReason> = {
  timeout: "proxy-header-timeout",
  "peer closed": "proxy-header-peer-closed",
  missing: "proxy-header-missing",
  malformed: "proxy-header-malformed",
};

/** Reasons for a failed connect, by system error code. */
const CONNECT_REASONS: Record<string, CloseReason> = {
  ECONNREFUSED: "target-refused",
  ENOENT: "target-socket-missing",
  EACCES: "target-forbidden",
  EHOSTUNREACH: "target-unreachable",
  ENETUNREACH: "target-network-unreachable",
  EMFILE: "target-descriptors-exhausted",
};

/** System errors that a network failure causes, rather than the peer. */
const NETWORK_FAILURES = ["ETIMEDOUT", "EHOSTUNREACH", "ENETUNREACH", "ENETDOWN"];

/** Short texts for system errors that connections often end with, by code. */
const SYSTEM_ERRORS: Record<string, string> = {
  ECONNREFUSED: "refused",
  ECONNRESET: "reset",
  EPIPE: "reset",
  ETIMEDOUT: "timeout",
  ENOENT: "no such socket",
};

/** Returns the end of a connection that an error ended. */
export function closingAfter(error: unknown): Closing {
  if (error instanceof RejectedError) return closingFor(error.reason);
  if (error instanceof HandshakeError) return closingFor(HANDSHAKE_REASONS[error.code]);
  if (error instanceof PacketError) return closingFor(PACKET_REASONS[error.code], String(error.packetNumber));
  if (error instanceof IdleError) return closingFor("idle-timeout", String(error.seconds));
  if (error instanceof ProxyHeaderError)
    return closingFor(PROXY_HEADER_REASONS[error.problem], error.message);
  if (error instanceof ResolveError) return closingFor("target-unresolved");
  if (error instanceof QueueTimeoutError) return closingFor("target-queue-timeout");
  if (error instanceof ConnectError) return closingAfterConnect(error);
  if (error instanceof ConnectionLostError) return closingAfterLoss(error);
  if (isSystemError(error)) return withSystemError("client-failed", error);
  return closingFor("internal-error", error instanceof Error ? error.message : String(error));
}

/** Returns true for an error of a system call, as Node's sockets report it. */
export function isSystemError(error: unknown): error is NodeJS.ErrnoException {
  return error instanceof Error && "syscall" in error;
}

function closingAfterConnect({ code, cause }: ConnectError): Closing {
  if (code === "ERR_SPIPED_CONNECT_TIMEOUT") return closingFor("target-timeout");
  if (!(cause instanceof Error)) return closingFor("target-unresolved");
  const error: NodeJS.ErrnoException = cause;
  // Only a connection from a given address (-b) calls bind().
  if (error.syscall === "bind") return withSystemError("target-bind-failed", error);
  return withSystemError(CONNECT_REASONS[error.code ?? ""] ?? "target-failed", error);
}

function closingAfterLoss({ side, cause }: ConnectionLostError): Closing {
  const end = side === "encrypted" ? "peer" : "plaintext";
  if (!(cause instanceof Error)) return closingFor(`${end}-closed`);
  const { code = "" } = cause as NodeJS.ErrnoException;
  if (code === "ECONNRESET" || code === "EPIPE") return closingFor(`${end}-reset`);
  return withSystemError(NETWORK_FAILURES.includes(code) ? `${end}-network-failed` : `${end}-failed`, cause);
}

function withSystemError(reason: CloseReason, error: Error): Closing {
  const short = SYSTEM_ERRORS[(error as NodeJS.ErrnoException).code ?? ""];
  return closingFor(reason, short ?? systemErrorText(error), short ?? systemErrorKind(error));
}
