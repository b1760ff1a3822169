/** The closed list of close reasons: its documentation, and the reason for each error. */
import { describe, expect, it } from "vitest";
import { adviceFor } from "../../../src/daemon/observe/advice.ts";
import { ConnectError } from "../../../src/net/connect-error.ts";
import { ProxyHeaderError, parseProxyHeader } from "../../../src/net/proxy-protocol.ts";
import { ResolveError } from "../../../src/net/resolve.ts";
import { HandshakeError, PacketError } from "../../../src/protocol/protocol-error.ts";
import { CLOSE_REASONS, type CloseReason } from "../../../src/tunnel/close-reason.ts";
import { closingAfter } from "../../../src/tunnel/find-close-reason.ts";
import {
  ConnectionLostError,
  IdleError,
  QueueTimeoutError,
  RejectedError,
} from "../../../src/tunnel/tunnel-error.ts";
import { tableRows } from "../../support/tables.ts";

const reasons = Object.keys(CLOSE_REASONS) as CloseReason[];

const systemError = (syscall: string, code: string, message = `${syscall} ${code}`) =>
  Object.assign(new Error(message), { syscall, code });
const connectFailed = (cause?: Error) =>
  new ConnectError("ERR_SPIPED_CONNECT", "could not connect", { cause });

/** Errors, and the reason, text and label with which each ends a connection. */
const ENDS: readonly (readonly [unknown, CloseReason, string, string?])[] = [
  [new IdleError(1500), "idle-timeout", "idle timeout (1.5 s)", "idle timeout"],
  [new RejectedError("ERR_SPIPED_EVICTED", "evicted"), "evicted", "too many unauthenticated connections"],
  [new HandshakeError("ERR_SPIPED_HANDSHAKE_MAC", ""), "wrong-key", "handshake: wrong key"],
  [
    new HandshakeError("ERR_SPIPED_HANDSHAKE_RANGE", ""),
    "value-out-of-range",
    "handshake: value out of range",
  ],
  [
    new HandshakeError("ERR_SPIPED_HANDSHAKE_WEAK", ""),
    "no-forward-secrecy",
    "handshake: peer offers no forward secrecy",
  ],
  [
    new HandshakeError("ERR_SPIPED_HANDSHAKE_EOF", "", { cause: systemError("read", "ECONNRESET") }),
    "handshake-peer-closed",
    "handshake: peer closed",
  ],
  [new HandshakeError("ERR_SPIPED_HANDSHAKE_TIMEOUT", ""), "handshake-timeout", "handshake: timeout"],
  [
    new PacketError("ERR_SPIPED_BAD_MAC", 7n, ""),
    "packet-forged",
    "peer: bad MAC at packet 7",
    "peer: bad MAC at packet",
  ],
  [
    new PacketError("ERR_SPIPED_BAD_LENGTH", 7n, ""),
    "packet-bad-length",
    "peer: bad length in packet 7",
    "peer: bad length in packet",
  ],
  [
    new PacketError("ERR_SPIPED_TRUNCATED", 7n, ""),
    "packet-truncated",
    "peer: truncated in packet 7",
    "peer: truncated in packet",
  ],
  [new ProxyHeaderError("timeout", "PROXY header: timeout"), "proxy-header-timeout", "PROXY header: timeout"],
  [
    new ProxyHeaderError("peer closed", "PROXY header: peer closed"),
    "proxy-header-peer-closed",
    "PROXY header: peer closed",
  ],
  [
    thrownBy(() => parseProxyHeader(Buffer.from("GET /"))),
    "proxy-header-missing",
    "no PROXY protocol header",
  ],
  [
    thrownBy(() => parseProxyHeader(Buffer.from("PROXY TCP4 x\r\n"))),
    "proxy-header-malformed",
    "malformed PROXY line",
  ],
  [new QueueTimeoutError(5000), "target-queue-timeout", "target: timeout"],
  [new ConnectError("ERR_SPIPED_CONNECT_TIMEOUT", ""), "target-timeout", "target: timeout"],
  [connectFailed(systemError("connect", "ECONNREFUSED")), "target-refused", "target: refused"],
  [connectFailed(systemError("connect", "ENOENT")), "target-socket-missing", "target: no such socket"],
  [connectFailed(systemError("connect", "EACCES")), "target-forbidden", "target: Permission denied"],
  [connectFailed(systemError("connect", "EHOSTUNREACH")), "target-unreachable", "target: No route to host"],
  [
    connectFailed(systemError("connect", "ENETUNREACH")),
    "target-network-unreachable",
    "target: Network is unreachable",
  ],
  [
    connectFailed(systemError("connect", "EMFILE")),
    "target-descriptors-exhausted",
    "target: Too many open files",
  ],
  [
    connectFailed(systemError("bind", "EADDRNOTAVAIL")),
    "target-bind-failed",
    "target: Cannot assign requested address",
  ],
  [connectFailed(systemError("connect", "ETIMEDOUT")), "target-failed", "target: timeout"],
  [
    connectFailed(systemError("connect", "EXYZ", "connect EXYZ 192.0.2.1:80")),
    "target-failed",
    "target: connect EXYZ 192.0.2.1:80",
    "target: connect EXYZ",
  ],
  [connectFailed(), "target-unresolved", "target: no address"],
  [new ResolveError("nosuch.invalid", "unknown"), "target-unresolved", "target: no address"],
  ...(["peer", "plaintext"] as const).flatMap((end) => {
    const lost = (cause: Error | null) =>
      new ConnectionLostError(end === "peer" ? "encrypted" : "plaintext", cause);
    const side = end === "peer" ? "peer" : "plaintext side";
    return [
      [lost(systemError("read", "ECONNRESET")), `${end}-reset`, `${side}: reset`],
      [lost(systemError("write", "EPIPE")), `${end}-reset`, `${side}: reset`],
      [lost(null), `${end}-closed`, `${side}: closed before end of stream`],
      [lost(systemError("read", "ETIMEDOUT")), `${end}-network-failed`, `${side}: timeout`],
      [lost(systemError("read", "EHOSTUNREACH")), `${end}-network-failed`, `${side}: No route to host`],
      [lost(systemError("read", "EIO")), `${end}-failed`, `${side}: Input/output error`],
    ] as const;
  }),
  [systemError("read", "ECONNRESET"), "client-failed", "reset"],
  [new TypeError("x is not a function"), "internal-error", "x is not a function", "internal error"],
];

function thrownBy(action: () => void): unknown {
  try {
    action();
  } catch (error) {
    return error;
  }
  throw new Error("did not throw");
}

describe("the list of close reasons", () => {
  const rows = tableRows("docs/reference/close-reasons.md");

  it("is the one that the documentation has, with texts and labels", () => {
    const listed = reasons.map((reason) => [reason, CLOSE_REASONS[reason].text, CLOSE_REASONS[reason].label]);
    expect(rows.map((row) => row.slice(0, 3))).toEqual(listed);
  });

  it("has something to do for each failure, and for nothing else, in the documentation", () => {
    for (const [reason, , , meaning, action] of rows) {
      const { isFailure } = CLOSE_REASONS[reason as CloseReason];
      expect(action === "nothing", reason).toBe(!isFailure);
      expect(meaning, reason).toMatch(/\.$/);
    }
  });

  it.each(reasons)("has one line of advice if %s is a failure", (reason) => {
    const { isFailure, isHandshake } = CLOSE_REASONS[reason];
    // The advice on most failed handshakes depends on the error.
    if (isHandshake && !reason.startsWith("handshake-key")) return;
    for (const mode of ["encrypt", "decrypt"] as const) {
      const advice = adviceFor(reason, undefined, { mode, source: "tcp", timeout: 5000 });
      if (isFailure) expect(advice).toMatch(/^\S.*\S$/);
      else expect(advice).toBeUndefined();
    }
  });
});

describe("an error", () => {
  it.each(ENDS)("has a reason: %s, %s", (error, reason, text, label = text) => {
    expect(closingAfter(error)).toEqual({ reason, text, label });
  });
});
