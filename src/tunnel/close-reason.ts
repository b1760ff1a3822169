/**
 * The closed list of reasons for which a connection closes, whether data could flow or not. IDs, texts and labels are
 * public; `docs/reference/close-reasons.md` explains each.
 */

/** One reason of the list. `{...}` in its texts stands for a detail. */
interface Definition {
  /** Text in the log. */
  readonly text: string;
  /** Label value in metrics: the text, without details that would make a series for each value. */
  readonly label: string;
  /** False if the connection ended cleanly, or was closed as configured. */
  readonly isFailure: boolean;
  /** True if it is counted as a failed handshake. */
  readonly isHandshake: boolean;
}

function expected(text: string, label = text) {
  return { text, label, isFailure: false, isHandshake: false } as const;
}

function failure(text: string, label = text) {
  return { text, label, isFailure: true, isHandshake: false } as const;
}

function handshake(problem: string) {
  const text = `handshake: ${problem}`;
  return { text, label: text, isFailure: true, isHandshake: true } as const;
}

export const CLOSE_REASONS = {
  // As intended.
  closed: expected("closed"),
  "idle-timeout": expected("idle timeout ({seconds} s)", "idle timeout"),
  "key-removed": expected("key removed"),
  "key-expired": expected("key expired"),
  "daemon-stopped": expected("daemon stopped"),
  shutdown: expected("closed while waiting for a slot"),
  aborted: expected("aborted"),

  // Clients that were not served.
  "address-not-allowed": failure("address not allowed"),
  evicted: failure("too many unauthenticated connections"),
  penalized: failure("penalized for failed handshakes"),
  "descriptors-exhausted": failure("too many connections for the limit on file descriptors"),
  "queue-full": failure("connection queue full"),
  "proxy-header-timeout": failure("PROXY header: timeout"),
  "proxy-header-peer-closed": failure("PROXY header: peer closed"),
  "proxy-header-missing": failure("no PROXY protocol header"),
  "proxy-header-malformed": failure("{problem}"),

  // Clients that left.
  "closed-early": failure("closed"),
  "closed-in-queue": failure("closed while waiting for a slot"),
  "client-closed": failure("client closed"),
  "client-failed": failure("{error}"),

  // Handshakes.
  "wrong-key": handshake("wrong key"),
  "value-out-of-range": handshake("value out of range"),
  "no-forward-secrecy": handshake("peer offers no forward secrecy"),
  "handshake-peer-closed": handshake("peer closed"),
  "handshake-timeout": handshake("timeout"),
  "handshake-key-removed": handshake("key removed"),
  "handshake-key-expired": handshake("key expired"),

  // Targets.
  "target-refused": failure("target: refused"),
  "target-timeout": failure("target: timeout"),
  "target-queue-timeout": failure("target: timeout"),
  "target-unreachable": failure("target: No route to host"),
  "target-network-unreachable": failure("target: Network is unreachable"),
  "target-socket-missing": failure("target: no such socket"),
  "target-forbidden": failure("target: Permission denied"),
  "target-descriptors-exhausted": failure("target: Too many open files"),
  "target-bind-failed": failure("target: {error}"),
  "target-unresolved": failure("target: no address"),
  "target-failed": failure("target: {error}"),

  // Open connections.
  "packet-forged": failure("peer: bad MAC at packet {number}", "peer: bad MAC at packet"),
  "packet-bad-length": failure("peer: bad length in packet {number}", "peer: bad length in packet"),
  "packet-truncated": failure("peer: truncated in packet {number}", "peer: truncated in packet"),
  "peer-reset": failure("peer: reset"),
  "peer-closed": failure("peer: closed before end of stream"),
  "peer-network-failed": failure("peer: {error}"),
  "peer-failed": failure("peer: {error}"),
  "plaintext-reset": failure("plaintext side: reset"),
  "plaintext-closed": failure("plaintext side: closed before end of stream"),
  "plaintext-network-failed": failure("plaintext side: {error}"),
  "plaintext-failed": failure("plaintext side: {error}"),

  "internal-error": failure("{error}", "internal error"),
} satisfies Record<string, Definition>;

/**
 * ID of the reason for which a connection closed; `docs/reference/close-reasons.md` explains each.
 *
 * @useDeclaredType
 */
export type CloseReason = keyof typeof CLOSE_REASONS;

/** IDs of the reasons that are failures. */
export type FailureReason = {
  [Id in CloseReason]: (typeof CLOSE_REASONS)[Id]["isFailure"] extends true ? Id : never;
}[CloseReason];

/** The end of a connection: a reason with its details. */
export interface Closing {
  readonly reason: CloseReason;
  /** One line for the log. */
  readonly text: string;
  /** Label value in metrics. */
  readonly label: string;
}

/**
 * Returns the end of a connection for a reason.
 *
 * @param detail - replaces the placeholder in the text.
 * @param labelDetail - replaces the placeholder in the label.
 */
export function closingFor(reason: CloseReason, detail = "", labelDetail = detail): Closing {
  const { text, label } = CLOSE_REASONS[reason];
  return { reason, text: fill(text, detail), label: fill(label, labelDetail) };
}

function fill(template: string, detail: string): string {
  if (!template.includes("{")) return template;
  return template.replace(/\{\w+\}/, () => detail);
}
