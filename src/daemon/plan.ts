/** What a tunnel shall do, as plain data: names looked up, keys read, nothing opened yet. */
import { fingerprint } from "../protocol/fingerprint.ts";
import { Secret } from "../protocol/secret.ts";
import type { Address, ResolvedAddress } from "../tunnel/address.ts";
import { AddressList } from "../tunnel/address-list.ts";
import type { Admission } from "../tunnel/admission.ts";
import type { SlotCounter } from "../tunnel/slots.ts";
import { Target } from "../tunnel/target.ts";
import { Targets } from "../tunnel/targets.ts";
import { type Key, Keyring } from "./keyring.ts";
import type { Log } from "./log.ts";
import type { Observer } from "./observer.ts";
import type { ServerOptions } from "./server.ts";

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

/** What a tunnel needs of the process that it lives in. */
export interface Surroundings {
  readonly log: Log;
  readonly observer?: Observer | undefined;
  readonly admission: Admission;
  /**
   * The counter of a limit.
   *
   * @param key name of the key that it belongs to; absent for the tunnel's own.
   */
  slots(plan: TunnelPlan, key: KeyPlan | undefined, limit: number): SlotCounter;
}

/**
 * Makes what a server needs of a plan; the targets' names are looked up from now on. The plan's secrets stay its own: the
 * server gets copies.
 */
export function serverOptions(plan: TunnelPlan, surroundings: Surroundings): ServerOptions {
  const { log, observer, admission } = surroundings;
  const makeTargets = (targets: readonly TargetPlan[]) => {
    const made = new Targets(
      targets.map(
        ({ address, addresses }) =>
          new Target(address, addresses, (error, first) => {
            if (first) log.warn(error.message);
            observer?.lookUpFailed?.(plan.name);
          }),
      ),
    );
    made.refreshEvery(plan.resolveInterval);
    return made;
  };
  /** Of each client: its keys share them. */
  const targetsOf = new Map<string | undefined, Targets>();
  const keys = plan.keys.map((key): Key => {
    const { name, secret, expires, maxConnections } = key;
    if (key.targets !== undefined && !targetsOf.has(name)) targetsOf.set(name, makeTargets(key.targets));
    return {
      name,
      secret: Secret.copy(secret),
      expires,
      fingerprint: name === undefined ? undefined : fingerprint(secret),
      targets: targetsOf.get(name),
      slots: maxConnections === undefined ? undefined : surroundings.slots(plan, key, maxConnections),
    };
  });
  return {
    name: plan.name,
    source: plan.source.kind,
    mode: plan.mode,
    targets: makeTargets(plan.targets),
    keyring: new Keyring(keys),
    slots: surroundings.slots(plan, undefined, plan.maxConnections),
    timeout: plan.timeout,
    idleTimeout: plan.idleTimeout,
    weak: plan.weak,
    requireForwardSecrecy: plan.requireForwardSecrecy,
    keepAlive: plan.keepAlive,
    bind: plan.bind,
    allow: plan.allow === undefined ? undefined : new AddressList(plan.allow),
    acceptProxy: plan.acceptProxy === undefined ? undefined : new AddressList(plan.acceptProxy),
    sendProxy: plan.sendProxy,
    penaltyExempt: plan.penaltyExempt === undefined ? undefined : new AddressList(plan.penaltyExempt),
    admission,
    log,
    observer,
  };
}

/** A plan as it can be sent to another process of this program; the receiver overwrites the keys it was sent. */
export type PortablePlan = Omit<TunnelPlan, "keys"> & {
  readonly keys: readonly (Omit<KeyPlan, "secret"> & { readonly key: Uint8Array })[];
};

export function packPlan(plan: TunnelPlan): PortablePlan {
  return { ...plan, keys: plan.keys.map(({ secret, ...key }) => ({ ...key, key: Secret.reveal(secret) })) };
}

export function unpackPlan(plan: PortablePlan): TunnelPlan {
  return { ...plan, keys: plan.keys.map(({ key, ...rest }) => ({ ...rest, secret: Secret.fromKey(key) })) };
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
