/** From a plan to what a tunnel server needs. */
import type { KeyPlan, TargetPlan, TunnelPlan } from "../config/plan.ts";

import { AddressList } from "../net/cidr-list.ts";
import { fingerprint } from "../protocol/fingerprint.ts";
import { Secret } from "../protocol/secret.ts";
import type { Admission } from "../tunnel/admission.ts";
import type { SlotCounter } from "../tunnel/slots.ts";
import { type Key, Keyring } from "./keyring.ts";
import type { Observer } from "./observe/events.ts";
import type { Log } from "./observe/log.ts";
import { Target } from "./target.ts";
import { Targets } from "./targets.ts";
import type { ServerOptions } from "./tunnel-server.ts";

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
