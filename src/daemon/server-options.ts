/** Settings of a TunnelServer, and what its connections share with those of other tunnels. */
import type { ResolvedAddress } from "../net/address.ts";
import type { AddressList } from "../net/cidr-list.ts";
import type { Engine } from "../protocol/engine/engine.ts";
import type { HandshakeOptions } from "../protocol/handshake.ts";
import type { Admission } from "../tunnel/admission.ts";
import type { Limiter } from "../tunnel/connection-limit.ts";
import type { ExponentPool } from "../tunnel/exponent-pool.ts";
import type { Keyring } from "./keyring.ts";
import type { Observer } from "./observe/events.ts";
import type { Targets } from "./targets.ts";

/** Options of a TunnelServer. */
export interface ServerOptions extends HandshakeOptions {
  /** Name used in the log and in metrics; undefined for a tunnel given on the command line. */
  readonly name?: string | undefined;
  /** Kind of the listening socket. */
  readonly source: "tcp" | "unix";
  /** `encrypt`: accepts plaintext connections, opens encrypted ones (`-e`). `decrypt`: the reverse (`-d`). */
  readonly mode: "encrypt" | "decrypt";
  /** Default targets; a key may have its own. */
  readonly targets: Targets;
  readonly keyring: Keyring;
  readonly connectionLimit: Limiter;
  /** Timeout for the connect and, separately, for the handshake, in ms; `Infinity` for none. */
  readonly timeout: number;
  /** Maximum time without traffic before a connection is closed, in ms; `Infinity` for no limit. */
  readonly idleTimeout: number;
  readonly keepAlive: boolean;
  /** Local address for connections to the target. */
  readonly bind?: ResolvedAddress | undefined;
  /** Client addresses that may connect; undefined allows all. */
  readonly allow?: AddressList | undefined;
  /** Addresses that must send a PROXY protocol header. */
  readonly acceptProxy?: AddressList | undefined;
  /** Version of the PROXY protocol header to send to the target; undefined for none. */
  readonly sendProxy?: "v1" | "v2" | undefined;
  /** Addresses that are never penalized for failed handshakes. */
  readonly penaltyExempt?: AddressList | undefined;
  readonly admission: Admission;
  readonly exponents: ExponentPool;
  readonly observer?: Observer | undefined;
  readonly engine: Engine;
}
