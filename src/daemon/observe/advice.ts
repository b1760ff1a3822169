/** Advice on what an operator can check after a connection failed. */
import { SpipedError } from "../../errors.ts";
import { formatAddress } from "../../net/address.ts";
import { ConnectError } from "../../net/connect-error.ts";
import { ProxyHeaderError } from "../../net/proxy-protocol.ts";
import { HandshakeError, PacketError } from "../../protocol/protocol-error.ts";
import { explainClientHandshake } from "../../tunnel/explain-handshake.ts";
import { ConnectionLostError, IdleError, QueueTimeoutError } from "../../tunnel/tunnel-error.ts";
import type { ServerOptions } from "../tunnel-server.ts";

/** The tunnel options that the advice depends on. */
export type TunnelSetup = Pick<ServerOptions, "mode" | "source" | "weak" | "timeout" | "bind">;

/** Advice on a failed connect, by system error code. */
const CONNECT_ADVICE: Record<string, string> = {
  ECONNREFUSED: "is the target's service running, and does it listen on that address?",
  ENOENT: "is the target's service running, and is its socket path right?",
  EACCES: "check that this daemon's user may open the target's socket",
  EHOSTUNREACH: "is there a route to the target, and does a firewall reject us?",
  ENETUNREACH: "is there a route to the target?",
  EMFILE: "raise the limit on file descriptors (ulimit -n, LimitNOFILE=)",
};

/** System errors that a network failure causes, rather than the peer. */
const NETWORK_FAILURES = ["ETIMEDOUT", "EHOSTUNREACH", "ENETUNREACH", "ENETDOWN"];

/**
 * Returns one line of advice on a failed connection.
 *
 * @returns undefined if the daemon closed the connection as configured.
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
  if (error instanceof ConnectionLostError) return explainConnectionLost(error, setup);
  if (error instanceof ProxyHeaderError)
    return "does that address send the PROXY protocol? if not, remove it from --accept-proxy";
  if (error instanceof SpipedError) return explainRejection(error);
  return "the connection broke before data could flow";
}

function explainServerHandshake({ code, awaiting }: HandshakeError, { source }: TunnelSetup): string {
  switch (code) {
    case "ERR_SPIPED_HANDSHAKE_MAC":
      return "the client has another key, or is not spiped: compare both sides' key files (spiped --check-key FILE, or sha256sum)";
    case "ERR_SPIPED_HANDSHAKE_RANGE":
      return "the client's Diffie-Hellman value is out of range: not a correct spiped implementation";
    case "ERR_SPIPED_HANDSHAKE_WEAK":
      return "the client uses -f, which -g rejects";
    case "ERR_SPIPED_HANDSHAKE_EOF":
    case "ERR_SPIPED_HANDSHAKE_TIMEOUT":
      if (awaiting !== "nonce")
        return "the client did not finish its handshake: it is not spiped, its -o is too short, or its machine is overloaded";
      return source === "unix"
        ? "the client sent no handshake: a health check, another spiped that was started for this socket, or a program that connects without spiped -e or spipe"
        : "the client sent no handshake: a port scan, a health check, or a program that connects without spiped -e or spipe";
  }
}

function explainConnect(error: ConnectError, { timeout, bind }: TunnelSetup): string {
  if (error instanceof QueueTimeoutError)
    return `no connection to the target was established within ${timeout / 1000} s: is it a spiped -d, and is it overloaded?`;
  if (error.code === "ERR_SPIPED_CONNECT_TIMEOUT") {
    return `no answer within ${timeout / 1000} s: is the target's address right, and does a firewall block us?`;
  }
  const { code = "", syscall } = (error.cause ?? {}) as NodeJS.ErrnoException;
  if (syscall === "bind" && bind !== undefined)
    return `is ${formatAddress(bind)} (-b) an address of this machine, with a free port?`;
  return CONNECT_ADVICE[code] ?? "can this machine reach the target?";
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

function explainConnectionLost({ side, cause }: ConnectionLostError, { mode }: TunnelSetup): string {
  const end = (side === "wire") === (mode === "encrypt") ? "target" : "client";
  const { code = "" } = (cause ?? {}) as NodeJS.ErrnoException;
  return NETWORK_FAILURES.includes(code)
    ? `the network between here and the ${end} failed`
    : `the ${end} reset the connection; check its log`;
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
    case "connection queue full":
      return "all connections of the limit are in use: raise -n, or the key's max-connections";
    case "client closed":
      return "the client left before the target had answered: is the target slow?";
  }
  return "the client's connection ended before data could flow";
}
