/** Explains why a connection of `spipe` failed, in lines that follow the message of Tarsnap's spipe. */

import { formatAddress, type ResolvedAddress } from "../net/address.ts";
import { ConnectError } from "../net/connect-error.ts";
import { systemErrorText } from "../net/system-error.ts";
import { HandshakeError, PacketError } from "../protocol/protocol-error.ts";
import { explainClientHandshake } from "../tunnel/explain-handshake.ts";
import { ConnectionFailure } from "./connection-failure.ts";

/** State of an attempt to connect. */
export interface Attempt {
  /** The last address tried; undefined if none was. */
  address: ResolvedAddress | undefined;
  /** Why addresses failed, one line each. */
  readonly failures: string[];
  /** True if `-f` was given. */
  readonly weak: boolean;
  /** Timeout in ms. */
  readonly timeout: number;
}

/** Returns why a connection could not be opened: Tarsnap's message, then the cause if it is known. */
export function explainOpening(error: unknown, attempt: Attempt): ConnectionFailure {
  if (error instanceof HandshakeError) {
    const isTimeout = error.code === "ERR_SPIPED_HANDSHAKE_TIMEOUT";
    return new ConnectionFailure([
      isTimeout ? "Connection error" : "Handshake failed",
      explainClientHandshake(error, attempt),
    ]);
  }
  const { address, failures, timeout } = attempt;
  const to = address === undefined ? "" : ` from ${formatAddress(address)}`;
  if (!(error instanceof ConnectError))
    return new ConnectionFailure(["Connection error", explainBreak(error)]);
  return error.code === "ERR_SPIPED_CONNECT"
    ? new ConnectionFailure(["Could not connect", ...failures])
    : new ConnectionFailure([
        "Connection error",
        ...failures,
        `no answer${to} within ${timeout / 1000} s: check the address and any firewall`,
      ]);
}

/** Returns why the connection to an address failed. */
export function explainAttempt(
  address: ResolvedAddress,
  bind: ResolvedAddress | undefined,
  error: NodeJS.ErrnoException,
): string {
  const where = formatAddress(address);
  const text = systemErrorText(error);
  if (error.syscall === "bind" && bind !== undefined)
    return `${where}: cannot connect from ${formatAddress(bind)}: ${text}: check that it is an address of this machine`;
  if (error.code === "ECONNREFUSED") return `${where}: ${text}: check that spiped -d is running there`;
  return `${where}: ${text}`;
}

/** Returns why an open connection broke. */
export function explainBreak(error: unknown): string {
  if (error instanceof PacketError) {
    const packet = `packet ${error.packetNumber} from the peer`;
    return error.code === "ERR_SPIPED_BAD_MAC"
      ? `${packet} has an invalid MAC: damaged or forged in transit`
      : `${packet} has an invalid length`;
  }
  const { code } = error as NodeJS.ErrnoException;
  return code === "ECONNRESET" || code === "EPIPE"
    ? `the peer or the network reset the connection: ${systemErrorText(error)}`
    : systemErrorText(error);
}
