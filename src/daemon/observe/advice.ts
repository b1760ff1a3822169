/** What an operator can check when a connection has failed. */
import { SpipedError } from "../../errors.ts";
import { formatAddress } from "../../net/address.ts";
import { ConnectError } from "../../net/connect-error.ts";
import { ProxyHeaderError } from "../../net/proxy-protocol.ts";
import { HandshakeError, PacketError } from "../../protocol/protocol-error.ts";
import { explainClientHandshake } from "../../tunnel/explain-handshake.ts";
import { BrokenPipeError, IdleError, QueueTimeoutError } from "../../tunnel/tunnel-error.ts";
import type { ServerOptions } from "../tunnel-server.ts";

/** How the tunnel was set up. */
export type TunnelSetup = Pick<ServerOptions, "mode" | "source" | "weak" | "timeout" | "bind">;

/** Causes of a failed connect, by the system's code. */
const CONNECT: Record<string, string> = {
  ECONNREFUSED: "does the target's service run, and does it listen on that address?",
  ENOENT: "does the target's service run, and is its socket's path right?",
  EACCES: "may this daemon's user open the target's socket?",
  EHOSTUNREACH: "is there a route to the target, and does a firewall reject us?",
  ENETUNREACH: "is there a route to the target?",
  EMFILE: "raise the limit on file descriptors (ulimit -n, LimitNOFILE=)",
};

/** What the system reports if the network has failed, and not the program at its other end. */
const NETWORK_FAILURES = ["ETIMEDOUT", "EHOSTUNREACH", "ENETUNREACH", "ENETDOWN"];

/**
 * Returns what to check, in one line.
 *
 * @returns undefined for a connection that the daemon closed as configured.
 */
export function adviceFor(error: unknown, setup: TunnelSetup): string | undefined {
  if (error instanceof IdleError) return undefined;
  if (error instanceof HandshakeError) {
    return setup.mode === "encrypt"
      ? explainClientHandshake(error, { weak: setup.weak === true, timeout: setup.timeout })
      : explainServerHandshake(error, setup);
  }
  if (error instanceof ConnectError) return explainConnect(error, setup);
  if (error instanceof PacketError) return explainPacket(error);
  if (error instanceof BrokenPipeError) return explainBreak(error, setup);
  if (error instanceof ProxyHeaderError)
    return "does that address send the PROXY protocol? if not, take it off --accept-proxy";
  if (error instanceof SpipedError) return explainRejection(error);
  return "the connection broke before data could flow";
}

function explainServerHandshake({ code, awaiting }: HandshakeError, { source }: TunnelSetup): string {
  switch (code) {
    case "ERR_SPIPED_HANDSHAKE_MAC":
      return "the client has another key, or is no spiped: compare both sides' key files (spiped --check-key FILE, or sha256sum)";
    case "ERR_SPIPED_HANDSHAKE_RANGE":
      return "the client's Diffie-Hellman value is out of range: it is no correct spiped";
    case "ERR_SPIPED_HANDSHAKE_WEAK":
      return "the client uses -f and -g forbids it";
    case "ERR_SPIPED_HANDSHAKE_EOF":
    case "ERR_SPIPED_HANDSHAKE_TIMEOUT":
      if (awaiting !== "nonce")
        return "the client did not finish its handshake: it is no spiped, its -o is too short, or its machine is overloaded";
      return source === "unix"
        ? "the client sent no handshake: a health check, another spiped that was started for this socket, or a program that connects without spiped -e or spipe"
        : "the client sent no handshake: a port scan, a health check, or a program that connects without spiped -e or spipe";
  }
}

function explainConnect(error: ConnectError, { timeout, bind }: TunnelSetup): string {
  if (error instanceof QueueTimeoutError)
    return `no connection to the target came about within ${timeout / 1000} s: is it a spiped -d, and is it overloaded?`;
  if (error.code === "ERR_SPIPED_CONNECT_TIMEOUT") {
    return `no answer within ${timeout / 1000} s: is the target's address right, and does a firewall let us through?`;
  }
  const { code = "", syscall } = (error.cause ?? {}) as NodeJS.ErrnoException;
  if (syscall === "bind" && bind !== undefined)
    return `is ${formatAddress(bind)} (-b) an address of this machine, with a free port?`;
  return CONNECT[code] ?? "can this machine reach the target?";
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

function explainBreak({ side, cause }: BrokenPipeError, { mode }: TunnelSetup): string {
  const end = (side === "wire") === (mode === "encrypt") ? "target" : "client";
  const { code = "" } = (cause ?? {}) as NodeJS.ErrnoException;
  return NETWORK_FAILURES.includes(code)
    ? `the network between here and the ${end} failed`
    : `the ${end} broke the connection off: its own log may tell why`;
}

function explainRejection({ code, message }: SpipedError): string {
  switch (code) {
    case "ERR_SPIPED_EVICTED":
      return "many clients connect without a handshake: a flood, or very slow clients";
    case "ERR_SPIPED_PENALIZED":
      return "earlier handshakes from this address had a wrong key: wait 15 s, or exempt it with --penalty-exempt";
    case "ERR_SPIPED_DESCRIPTORS":
      return "raise the limit on file descriptors (ulimit -n, LimitNOFILE=)";
  }
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
