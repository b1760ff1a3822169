/** What an operator can check when a connection has failed. */
import { HandshakeError, PacketError, SpipedError } from "../protocol/errors.ts";
import { BrokenPipeError, ConnectError, IdleError } from "../tunnel/errors.ts";
import { explainClientHandshake } from "../tunnel/explain-handshake.ts";

/** How the tunnel was set up. */
export interface TunnelSetup {
  readonly mode: "encrypt" | "decrypt";
  readonly weak?: boolean | undefined;
  /** ms */
  readonly timeout: number;
}

/** Errors that the log reports in another way: for a whole source, or for the whole process. */
const REPORTED_ELSEWHERE = ["ERR_SPIPED_PENALIZED", "ERR_SPIPED_DESCRIPTORS"];

const COMPARE_KEYS = "compare the fingerprints that spiped --check-key FILE prints on both sides";

/** Causes of a failed connect, by the system's code. */
const CONNECT: Record<string, string> = {
  ECONNREFUSED: "does the target's service run, and does it listen on that address?",
  ENOENT: "does the target's service run, and is its socket's path right?",
  EACCES: "may this daemon's user open the target's socket?",
  EHOSTUNREACH: "is there a route to the target, and does a firewall reject us?",
  ENETUNREACH: "is there a route to the target?",
  EADDRNOTAVAIL: "is the address of -b one of this machine, and are there free ports?",
  EMFILE: "raise the limit on file descriptors (ulimit -n, LimitNOFILE=)",
};

/**
 * Returns what to check, in one line.
 *
 * @returns undefined for a connection that the daemon closed as configured, and for failures that are reported elsewhere.
 */
export function adviceFor(error: unknown, setup: TunnelSetup): string | undefined {
  if (error instanceof IdleError) return undefined;
  if (error instanceof HandshakeError) {
    return setup.mode === "encrypt"
      ? explainClientHandshake(error, { weak: setup.weak === true, timeout: setup.timeout })
      : explainServerHandshake(error);
  }
  if (error instanceof ConnectError) return explainConnect(error, setup);
  if (error instanceof PacketError) return explainPacket(error);
  if (error instanceof BrokenPipeError) {
    return `${endOf(error, setup)} broke the connection off: its own log may tell why`;
  }
  if (!(error instanceof SpipedError)) return "the connection broke before data could flow";
  return REPORTED_ELSEWHERE.includes(error.code) ? undefined : explainRejection(error);
}

function explainServerHandshake({ code, awaiting }: HandshakeError): string {
  switch (code) {
    case "ERR_SPIPED_HANDSHAKE_MAC":
      return COMPARE_KEYS;
    case "ERR_SPIPED_HANDSHAKE_RANGE":
      return "the client's Diffie-Hellman value is out of range: it is no correct spiped";
    case "ERR_SPIPED_HANDSHAKE_WEAK":
      return "the client uses -f and -g forbids it";
    case "ERR_SPIPED_HANDSHAKE_EOF":
    case "ERR_SPIPED_HANDSHAKE_TIMEOUT":
      return awaiting === "nonce"
        ? "the client sent no handshake: a port scan, a health check, or a program that connects without spiped -e or spipe"
        : "the client did not finish its handshake: is its -o too short, or its machine overloaded?";
  }
}

function explainConnect({ code, cause }: ConnectError, { timeout }: TunnelSetup): string {
  if (code === "ERR_SPIPED_CONNECT_TIMEOUT") {
    return `no answer within ${timeout / 1000} s: is the target's address right, and does a firewall let us through?`;
  }
  const { code: systemCode = "" } = (cause ?? {}) as NodeJS.ErrnoException;
  return CONNECT[systemCode] ?? "can this machine reach the target?";
}

function explainPacket({ code }: PacketError): string {
  switch (code) {
    case "ERR_SPIPED_BAD_MAC":
    case "ERR_SPIPED_BAD_LENGTH":
      return "the stream was damaged or forged on the way";
    case "ERR_SPIPED_TRUNCATED":
      return "data is missing: the peer crashed, or something on the way closed the connection";
  }
}

/** The program at the far end of the socket that broke. */
function endOf({ side }: BrokenPipeError, { mode }: TunnelSetup): string {
  return (side === "wire") === (mode === "encrypt") ? "the target" : "the client";
}

function explainRejection({ code, message }: SpipedError): string {
  if (code === "ERR_SPIPED_EVICTED")
    return "many clients connect without a handshake: a flood, or very slow clients";
  switch (message) {
    case "address not allowed":
      return "add the client's address to --allow if it may connect";
    case "handshake: key removed":
    case "handshake: key expired":
      return "give the client a new key: spiped keys add or rotate makes one";
    case "closed while waiting for a slot":
    case "too many connections wait for a slot":
      return "all connections of the limit are in use: raise -n, or the key's max-connections";
    case "client closed":
      return "the client left before the target had answered: is the target slow?";
  }
  return "the client's connection ended before data could flow";
}
