/** Converts a plan to the options of a tunnel server. */
import type { KeyPlan, TargetPlan, TunnelPlan } from "../config/plan.ts";
import { AddressList } from "../net/cidr-list.ts";
import type { Engine } from "../protocol/engine/engine.ts";
import { fingerprint } from "../protocol/fingerprint.ts";
import { Secret } from "../protocol/secret.ts";
import type { Admission } from "../tunnel/admission.ts";
import type { Limiter } from "../tunnel/connection-limit.ts";
import type { ExponentPool } from "../tunnel/exponent-pool.ts";
import { type Key, Keyring } from "./keyring.ts";
import type { Observer } from "./observe/events.ts";
import type { Log } from "./observe/log.ts";
import type { ServerOptions } from "./server-options.ts";
import { Target } from "./target.ts";
import { Targets } from "./targets.ts";

/** Objects that the tunnels of a process share. */
export interface TunnelContext {
  readonly log: Log;
  readonly observer?: Observer | undefined;
  readonly admission: Admission;
  readonly engine: Engine;
  readonly exponents: ExponentPool;
  /**
   * Returns a connection limit, set to `limit`.
   *
   * @param key - the key that the limit applies to; undefined for the tunnel's own limit.
   */
  connectionLimit(plan: TunnelPlan, key: KeyPlan | undefined, limit: number): Limiter;
}

/**
 * Returns the server options for a plan and starts the periodic lookups of its targets. The server gets copies of the
 * plan's secrets, so the caller can destroy the plan's.
 */
export function serverOptions(plan: TunnelPlan, context: TunnelContext): ServerOptions {
  const { log, observer, admission, exponents, engine } = context;
  const { settings } = plan;
  const makeTargets = (targets: readonly TargetPlan[]) => {
    const result = new Targets(
      targets.map(
        ({ address, addresses }) =>
          new Target(address, addresses, (error, first) => {
            if (first) log.warn(error.message);
            observer?.lookupFailed?.(plan.name);
          }),
      ),
    );
    result.startRefreshing(settings.noResolve ? Number.POSITIVE_INFINITY : settings.resolveInterval);
    return result;
  };
  /** Targets by client name; a client's keys share them. */
  const targetsByClient = new Map<string | undefined, Targets>();
  const keys = plan.keys.map((key): Key => {
    const { name, secret, expires, maxConnections } = key;
    if (key.targets !== undefined && !targetsByClient.has(name))
      targetsByClient.set(name, makeTargets(key.targets));
    return {
      name,
      secret: Secret.copy(secret),
      expires,
      fingerprint: name === undefined ? undefined : fingerprint(secret),
      targets: targetsByClient.get(name),
      connectionLimit:
        maxConnections === undefined ? undefined : context.connectionLimit(plan, key, maxConnections),
    };
  });
  return {
    name: plan.name,
    source: plan.source.kind,
    mode: plan.mode,
    targets: makeTargets(plan.targets),
    keyring: new Keyring(keys),
    connectionLimit: context.connectionLimit(plan, undefined, settings.maxConnections),
    timeout: settings.timeout,
    idleTimeout: settings.idleTimeout,
    weak: settings.weakHandshake,
    requireForwardSecrecy: settings.requireForwardSecrecy,
    keepAlive: !settings.noKeepAlive,
    bind: plan.bind,
    allow: addressList(settings.allow),
    acceptProxy: addressList(settings.acceptProxy),
    sendProxy: settings.sendProxy,
    penaltyExempt: addressList(settings.penaltyExempt),
    admission,
    exponents,
    observer,
    engine,
  };
}

function addressList(entries: readonly string[] | undefined): AddressList | undefined {
  return entries === undefined ? undefined : new AddressList(entries);
}
