/** Advice on what an operator can check after a connection failed. */
import { formatAddress } from "../../net/address.ts";
import { HandshakeError } from "../../protocol/protocol-error.ts";
import type { CloseReason, FailureReason } from "../../tunnel/close-reason.ts";
import { explainClientHandshake } from "../../tunnel/explain-handshake.ts";
import type { HandshakeReason } from "../../tunnel/find-close-reason.ts";
import type { ServerOptions } from "../server-options.ts";

/** The tunnel options that the advice depends on. */
type TunnelSetup = Pick<ServerOptions, "mode" | "source" | "weak" | "timeout" | "bind">;

const UNREACHED = "check that this machine can reach the target";
const RAISE_DESCRIPTORS = "raise the limit on file descriptors (ulimit -n, LimitNOFILE=)";
const NO_PROXY_HEADER = "if that address does not send the PROXY protocol, remove it from --accept-proxy";
const RAISE_LIMIT =
  "all connections that the limit allows are in use: raise -n, or the key's max-connections";
const NEW_KEY = "create a new key for the client with spiped keys add or rotate";
const DAMAGED = "the stream was damaged or forged in transit";
const BROKEN = "the connection broke before data could flow";

/** One line for each reason that is a failure. */
const ADVICE: Record<Exclude<FailureReason, HandshakeReason>, string | ((setup: TunnelSetup) => string)> = {
  "address-not-allowed": "add the client's address to --allow if it may connect",
  evicted: "many clients connect without completing a handshake: a flood, or very slow clients",
  penalized:
    "earlier handshakes from this address had a wrong key: wait 15 s, or exempt it with --penalty-exempt",
  "descriptors-exhausted": RAISE_DESCRIPTORS,
  "queue-full": RAISE_LIMIT,
  "proxy-header-timeout": NO_PROXY_HEADER,
  "proxy-header-peer-closed": NO_PROXY_HEADER,
  "proxy-header-missing": NO_PROXY_HEADER,
  "proxy-header-malformed": NO_PROXY_HEADER,
  "closed-early": "the client's connection closed before data could flow",
  "closed-in-queue": RAISE_LIMIT,
  "client-closed":
    "the client closed the connection before the target answered: check whether the target is slow",
  "client-failed": BROKEN,
  "handshake-key-removed": NEW_KEY,
  "handshake-key-expired": NEW_KEY,
  "target-refused": "check that the target's service is running and listens on that address",
  "target-timeout": ({ timeout }) =>
    `no answer within ${timeout / 1000} s: check the target's address and any firewall`,
  "target-queue-timeout": ({ timeout }) =>
    `no connection to the target was established within ${timeout / 1000} s: check that it is a spiped -d and not overloaded`,
  "target-unreachable": "check the route to the target and any firewall",
  "target-network-unreachable": "check the route to the target",
  "target-socket-missing": "check that the target's service is running, and its socket path",
  "target-forbidden": "check that this daemon's user may open the target's socket",
  "target-descriptors-exhausted": RAISE_DESCRIPTORS,
  "target-bind-failed": ({ bind }) =>
    bind === undefined
      ? UNREACHED
      : `check that ${formatAddress(bind)} (-b) is an address of this machine with a free port`,
  "target-unresolved": UNREACHED,
  "target-failed": UNREACHED,
  "packet-forged": DAMAGED,
  "packet-bad-length": DAMAGED,
  "packet-truncated": "data is missing: the peer crashed, or the connection was cut in transit",
  "peer-reset": (setup) => explainReset(wireEnd(setup)),
  "peer-closed": (setup) => explainReset(wireEnd(setup)),
  "peer-network-failed": (setup) => explainNetwork(wireEnd(setup)),
  "peer-failed": (setup) => explainReset(wireEnd(setup)),
  "plaintext-reset": (setup) => explainReset(plaintextEnd(setup)),
  "plaintext-closed": (setup) => explainReset(plaintextEnd(setup)),
  "plaintext-network-failed": (setup) => explainNetwork(plaintextEnd(setup)),
  "plaintext-failed": (setup) => explainReset(plaintextEnd(setup)),
  "internal-error": BROKEN,
};

/**
 * Returns one line of advice on a failed connection.
 *
 * @param error - the error that ended the connection.
 * @returns undefined if the reason is not a failure.
 */
export function adviceFor(reason: CloseReason, error: unknown, setup: TunnelSetup): string | undefined {
  // What a failed handshake means depends on its mode, and on the part that was missing.
  if (error instanceof HandshakeError) {
    return setup.mode === "encrypt"
      ? explainClientHandshake(error, { weak: setup.weak === true, timeout: setup.timeout })
      : explainServerHandshake(error, setup);
  }
  const advice = reason in ADVICE ? ADVICE[reason as keyof typeof ADVICE] : undefined;
  return typeof advice === "function" ? advice(setup) : advice;
}

function explainServerHandshake({ code, awaiting }: HandshakeError, { source }: TunnelSetup): string {
  switch (code) {
    case "ERR_SPIPED_HANDSHAKE_MAC":
      return "the client's key differs, or it is not spiped: compare both sides' key files (spiped --check-key FILE, or sha256sum)";
    case "ERR_SPIPED_HANDSHAKE_RANGE":
      return "the client's Diffie-Hellman value is out of range: not a correct spiped implementation";
    case "ERR_SPIPED_HANDSHAKE_WEAK":
      return "the client uses -f, which -g rejects";
    case "ERR_SPIPED_HANDSHAKE_EOF":
    case "ERR_SPIPED_HANDSHAKE_TIMEOUT":
      if (awaiting !== "nonce")
        return "the client did not finish its handshake: it is not spiped, its -o is too short, or its machine is overloaded";
      return source === "unix"
        ? "the client sent no handshake: a health check, another spiped starting on this socket, or a program that connects without spiped -e or spipe"
        : "the client sent no handshake: a port scan, a health check, or a program that connects without spiped -e or spipe";
  }
}

function wireEnd({ mode }: TunnelSetup): string {
  return mode === "encrypt" ? "target" : "client";
}

function plaintextEnd({ mode }: TunnelSetup): string {
  return mode === "encrypt" ? "client" : "target";
}

function explainReset(end: string): string {
  return `the ${end} reset the connection; check its log`;
}

function explainNetwork(end: string): string {
  return `the network between here and the ${end} failed`;
}
