/** Plans of tunnels as plain data: names are resolved and keys read, but no socket is open. */
import type { Address, ResolvedAddress } from "../net/address.ts";
import type { Secret } from "../protocol/secret.ts";
import type { TunnelSettings } from "./tunnel-settings.ts";

/** A target as configured, with the addresses of the last lookup. */
export interface TargetPlan {
  readonly address: Address;
  readonly addresses: readonly ResolvedAddress[];
}

/** A key and the restrictions of its client. */
export interface KeyPlan {
  /** The client's name, which several keys may share. */
  readonly name?: string | undefined;
  /** Path of the key file; undefined unless it is in a key directory. */
  readonly path?: string | undefined;
  readonly secret: Secret;
  /** Targets that replace the tunnel's; undefined to use the tunnel's. */
  readonly targets?: readonly TargetPlan[] | undefined;
  /** Connection limit of the client, in addition to the tunnel's. */
  readonly maxConnections?: number | undefined;
  /** Time of expiry, in ms since 1970. */
  readonly expires?: number | undefined;
}

/** A tunnel's plan: its settings, and what they name. */
export interface TunnelPlan {
  readonly name?: string | undefined;
  readonly mode: "encrypt" | "decrypt";
  readonly settings: TunnelSettings;
  readonly source: ResolvedAddress;
  readonly targets: readonly TargetPlan[];
  readonly keys: readonly KeyPlan[];
  readonly bind?: ResolvedAddress | undefined;
}

/** Overwrites the secrets of plans that are no longer needed, except those that `others` share. */
export function destroySecrets(
  plans: readonly (TunnelPlan | undefined)[],
  others: readonly (TunnelPlan | undefined)[] = [],
): void {
  const secretsOf = (from: typeof plans) =>
    from.flatMap((plan) => plan?.keys ?? []).map(({ secret }) => secret);
  const needed = new Set(secretsOf(others));
  for (const secret of secretsOf(plans)) if (!needed.has(secret)) secret.destroy();
}
