/** Makes a tunnel's plan from its settings: resolves names and reads keys. */
import { setTimeout as sleep } from "node:timers/promises";
import { ConfigError, UsageError } from "../config/config-error.ts";
import type { TunnelSettings } from "../config/tunnel-settings.ts";
import { type Address, parseAddress, parseBindAddress, type ResolvedAddress } from "../net/address.ts";
import { fingerprint } from "../protocol/fingerprint.ts";
import { Secret } from "../protocol/secret.ts";
import { firstAddress, resolveOption } from "./addresses.ts";
import type { KeyPlan, TargetPlan, TunnelPlan } from "./plan.ts";
import { readKey } from "./read-key.ts";
import { type KeysRead, type NamedKey, readKeys } from "./read-keys.ts";

/** Maximum time `-D` waits for further targets after the first is resolved, in ms. */
const FURTHER_TARGETS_MS = 1000;

/** Options of `planTunnel()`. */
export interface PlanningOptions {
  /** Do not fail if a name cannot be resolved; a target then has no addresses. */
  readonly waitForDns: boolean;
  readonly warn: (message: string) => void;
  /** Called at each attempt if a name cannot be resolved, as Tarsnap's spiped reports it. */
  readonly onUnresolved: (message: string) => void;
  /** Called for each rejected key, if the others are accepted. */
  readonly onRejected: (message: string) => void;
  /** Called for each ignored file in a key directory, whenever the directory is read. */
  readonly onIgnored: (message: string) => void;
  /** The active plan. Its keys are kept if they came from standard input, and its addresses if a DNS lookup fails. */
  readonly previous?: TunnelPlan | undefined;
}

/**
 * Resolves all addresses and reads the keys, in the order of Tarsnap's spiped.
 *
 * @returns undefined if `waitForDns` is set and the source or bind address cannot be resolved, or an address cannot be
 * parsed.
 * @throws ConfigError, UsageError
 */
export async function planTunnel(
  settings: TunnelSettings,
  options: PlanningOptions,
): Promise<TunnelPlan | undefined> {
  const { name } = settings;
  const addPrefix = (line: string) => (name === undefined ? line : `${name}: ${line}`);
  const prefixed = (log: (message: string) => void) => (message: string) => log(addPrefix(message));
  try {
    return await plan(settings, {
      ...options,
      warn: prefixed(options.warn),
      onUnresolved: prefixed(options.onUnresolved),
      onRejected: prefixed(options.onRejected),
    });
  } catch (error) {
    const failure = error instanceof UnresolvedError ? error.failure : error;
    if (error instanceof UnresolvedError && options.waitForDns) {
      for (const line of error.lines) options.onUnresolved(addPrefix(line));
      return undefined;
    }
    if (name === undefined || !isConfigProblem(failure)) throw failure;
    throw new ConfigError(linesOf(failure).map(addPrefix));
  }
}

/** An address cannot be parsed or resolved; a later attempt may succeed. */
class UnresolvedError extends Error {
  readonly failure: ConfigError | UsageError;

  constructor(failure: ConfigError | UsageError) {
    super(failure.message);
    this.failure = failure;
  }

  get lines(): readonly string[] {
    return linesOf(this.failure);
  }
}

function isConfigProblem(error: unknown): error is ConfigError | UsageError {
  return error instanceof ConfigError || error instanceof UsageError;
}

function linesOf(failure: ConfigError | UsageError): readonly string[] {
  return failure instanceof ConfigError ? failure.lines : [failure.upstreamMessage ?? failure.message];
}

async function plan(settings: TunnelSettings, options: PlanningOptions): Promise<TunnelPlan> {
  const { warn, previous } = options;
  const lastAnswers = [
    ...(previous?.targets ?? []),
    ...(previous?.keys.flatMap(({ targets }) => targets ?? []) ?? []),
  ];
  const lookUp = async (...args: Parameters<typeof resolveOption>) => {
    try {
      return await resolveOption(...args);
    } catch (error) {
      throw isConfigProblem(error) ? new UnresolvedError(error) : error;
    }
  };
  /** Returns a target's last known addresses or, with -D, none; undefined if the target is unusable. */
  const fallback = (target: string): TargetPlan | undefined => {
    const last = lastAnswers.find(({ address }) => address.text === target);
    if (last !== undefined || !options.waitForDns) return last;
    try {
      return { address: parseAddress(target), addresses: [] };
    } catch {
      return undefined;
    }
  };
  const lookUpTargets = (targets: readonly string[], place?: string): Promise<TargetPlan[]> => {
    const lookUps = targets.map((target) => lookUp(target, "-t", parseAddress, place));
    const never = () => new Promise<never>(() => {});
    // With -D, once one target is resolved, the others do not prevent the tunnel from starting.
    const waitedEnough = options.waitForDns
      ? Promise.any(lookUps).then(() => sleep(FURTHER_TARGETS_MS), never)
      : never();
    return Promise.all(
      targets.map(async (target, index) => {
        try {
          return (await Promise.race([lookUps[index]!, waitedEnough])) ?? fallback(target)!;
        } catch (error) {
          const known = fallback(target);
          if (known === undefined || !(error instanceof UnresolvedError)) throw error;
          for (const line of error.lines) options.onUnresolved(line);
          return known;
        }
      }),
    );
  };
  const first = async (
    text: string,
    typed: string,
    parse: (text: string) => Address,
  ): Promise<ResolvedAddress> => {
    const { addresses } = await lookUp(text, typed, parse);
    return firstAddress(addresses, text, warn);
  };

  const source = await first(settings.source, "-s", parseAddress);
  const targets = await lookUpTargets([...settings.target, ...(settings.failoverTarget ?? [])]);
  const bind = settings.bind === undefined ? undefined : await first(settings.bind, "-b", parseBindAddress);
  if ((settings.socketMode !== undefined || settings.socketOwner !== undefined) && source.kind !== "unix") {
    throw new ConfigError([`--socket-mode and --socket-owner require a UNIX socket, not ${settings.source}`]);
  }

  const read = await readTunnelKeys(settings, options);
  /** Targets by client, shared by its keys. */
  const targetsOf = new Map<string, readonly TargetPlan[]>();
  const fingerprints = new Map<string, { readonly name: string; readonly path: string }>();
  const keys: KeyPlan[] = [];
  for (const key of read.keys) {
    const { name, path } = key;
    if (name === undefined || path === undefined) {
      keys.push({ secret: key.secret });
      continue;
    }
    const print = fingerprint(key.secret);
    const same = fingerprints.get(print);
    if (same === undefined) fingerprints.set(print, { name, path });
    else if (same.name === name) warn(`${same.path} and ${path} contain the same key`);
    else warn(`keys ${same.name} and ${name} are identical; clients are treated as ${same.name}`);
    const own = { ...omitUndefined(read.clients.get(name)), ...omitUndefined(settings.clients?.get(name)) };
    if (own.targets !== undefined && !targetsOf.has(name))
      targetsOf.set(name, await lookUpTargets(own.targets, `the target of key ${name}`));
    keys.push({
      name,
      path,
      secret: key.secret,
      targets: targetsOf.get(name),
      maxConnections: own.maxConnections,
      expires: own.expires?.getTime(),
    });
  }
  for (const name of [...(settings.clients?.keys() ?? [])].filter((name) => !read.clients.has(name))) {
    const message = `no key of client ${name} in ${settings.key}`;
    // At a reload, the settings of a client may remain after its last key was removed.
    if (!previous?.keys.some((key) => key.name === name)) throw new ConfigError([message]);
    warn(message);
  }

  return {
    name: settings.name,
    mode: settings.encrypt ? "encrypt" : "decrypt",
    settings,
    source,
    targets,
    keys,
    bind,
  };
}

/** Reads the keys: one with -e, one or more with -d. */
async function readTunnelKeys(
  settings: TunnelSettings,
  { warn, onRejected: refuse, onIgnored: ignore, previous }: PlanningOptions,
): Promise<KeysRead> {
  const clients = new Map();
  if (settings.key === "-" && previous !== undefined) {
    return { keys: previous.keys.map(({ secret }) => ({ secret })), clients };
  }
  const read = settings.decrypt
    ? await readKeys(settings.key, { warn, refuse, ignore }, previous?.keys)
    : { keys: [{ secret: await readKey(settings.key, warn) }], clients };
  return { ...read, keys: read.keys.map((key) => keepSecret(key, previous?.keys ?? [])) };
}

/**
 * Returns the key with the previous plan's `Secret` if it is equal, so that the object is kept while the key is in use.
 */
function keepSecret(key: NamedKey, previous: readonly KeyPlan[]): NamedKey {
  const same = previous.find(({ name, secret }) => name === key.name && Secret.equal(secret, key.secret));
  if (same === undefined || same.secret === key.secret) return key;
  key.secret.destroy();
  return { ...key, secret: same.secret };
}

/** Returns an object without its undefined fields, so that they override nothing when objects are merged. */
function omitUndefined<Fields extends object>(fields: Fields | undefined): Partial<Fields> {
  return Object.fromEntries(
    Object.entries(fields ?? {}).filter(([, value]) => value !== undefined),
  ) as Partial<Fields>;
}
