/** What a tunnel shall do, as plain data: names looked up, keys read, nothing opened yet. */
import type { Address, ResolvedAddress } from "../net/address.ts";
import type { Secret } from "../protocol/secret.ts";

/** A target, as typed and as last looked up. */
export interface TargetPlan {
  readonly address: Address;
  readonly addresses: readonly ResolvedAddress[];
}

/** A key and what holds for its clients. */
export interface KeyPlan {
  /** The client's name, which several keys may share. */
  readonly name?: string | undefined;
  /** Path of the file that it was read from, if that is one of a directory. */
  readonly path?: string | undefined;
  readonly secret: Secret;
  /** Instead of the tunnel's targets, if there are any. */
  readonly targets?: readonly TargetPlan[] | undefined;
  /** Beside the tunnel's limit. */
  readonly maxConnections?: number | undefined;
  /** ms since 1970 */
  readonly expires?: number | undefined;
}

/** A tunnel. Times are in ms; `Infinity` stands for no limit. */
export interface TunnelPlan {
  readonly name?: string | undefined;
  readonly mode: "encrypt" | "decrypt";
  readonly source: ResolvedAddress;
  /** Permissions of a UNIX source. */
  readonly socketMode?: number | undefined;
  /** Owner of a UNIX source, as `-u` takes it. */
  readonly socketOwner?: string | undefined;
  readonly targets: readonly TargetPlan[];
  readonly keys: readonly KeyPlan[];
  readonly bind?: ResolvedAddress | undefined;
  readonly weak: boolean;
  readonly requireForwardSecrecy: boolean;
  readonly keepAlive: boolean;
  readonly maxConnections: number;
  readonly timeout: number;
  readonly idleTimeout: number;
  readonly resolveInterval: number;
  readonly allow?: readonly string[] | undefined;
  readonly acceptProxy?: readonly string[] | undefined;
  readonly sendProxy?: "v1" | "v2" | undefined;
  readonly penaltyExempt?: readonly string[] | undefined;
}

/** Overwrites the secrets of plans that are not needed any more, but for those that other plans share. */
export function destroySecrets(
  plans: readonly (TunnelPlan | undefined)[],
  others: readonly (TunnelPlan | undefined)[] = [],
): void {
  const secretsOf = (from: typeof plans) =>
    from.flatMap((plan) => plan?.keys ?? []).map(({ secret }) => secret);
  const needed = new Set(secretsOf(others));
  for (const secret of secretsOf(plans)) if (!needed.has(secret)) secret.destroy();
}
