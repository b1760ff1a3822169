/** From settings to a plan: names looked up, keys read. */
import { setTimeout as sleep } from "node:timers/promises";
import { ConfigError, UsageError } from "../config/config-error.ts";
import type { TunnelSettings } from "../config/tunnel-settings.ts";
import { type Address, parseAddress, parseBindAddress, type ResolvedAddress } from "../net/address.ts";
import { AddressList } from "../net/cidr-list.ts";
import { fingerprint } from "../protocol/fingerprint.ts";
import { Secret } from "../protocol/secret.ts";
import { addressOf, firstAddress } from "./addresses.ts";
import type { KeyPlan, TargetPlan, TunnelPlan } from "./plan.ts";
import { readKey } from "./read-key.ts";
import { type KeysRead, type NamedKey, readKeys } from "./read-keys.ts";

/** How long `-D` waits for the names of further targets when one is known, ms. */
const FURTHER_TARGETS_MS = 1000;

/** How to go about it. */
export interface PlanningOptions {
  /** Do not fail for a name that can't be looked up now: a target is left without addresses. */
  readonly waitForDns: boolean;
  readonly warn: (message: string) => void;
  /** Called if the tunnel must wait for a name, as the original reports it: at each attempt. */
  readonly unresolved: (message: string) => void;
  /** Called for a key that is not accepted while the others are. */
  readonly refuse: (message: string) => void;
  /** Called for a file of a key directory that is no key, at each reading. */
  readonly ignore: (message: string) => void;
  /** The plan in force: its keys stay if they came from standard input, its addresses if a look-up fails now. */
  readonly previous?: TunnelPlan | undefined;
}

/**
 * Looks all addresses up and reads the keys, in the original's order.
 *
 * @returns undefined if the tunnel's own names can't be looked up and `waitForDns` is set.
 * @throws ConfigError, UsageError
 */
export async function planTunnel(
  settings: TunnelSettings,
  options: PlanningOptions,
): Promise<TunnelPlan | undefined> {
  const { name } = settings;
  const inTunnel = (line: string) => (name === undefined ? line : `${name}: ${line}`);
  const named = (tell: (message: string) => void) => (message: string) => tell(inTunnel(message));
  try {
    return await plan(settings, {
      ...options,
      warn: named(options.warn),
      unresolved: named(options.unresolved),
      refuse: named(options.refuse),
    });
  } catch (error) {
    const failure = error instanceof UnresolvedError ? error.failure : error;
    if (error instanceof UnresolvedError && options.waitForDns) {
      for (const line of error.lines) options.unresolved(inTunnel(line));
      return undefined;
    }
    if (name === undefined || !isUsersMistake(failure)) throw failure;
    throw new ConfigError([...linesOf(failure).map(inTunnel)]);
  }
}

/** An address that can't be read or looked up, which may be different later. */
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

function isUsersMistake(error: unknown): error is ConfigError | UsageError {
  return error instanceof ConfigError || error instanceof UsageError;
}

function linesOf(failure: ConfigError | UsageError): readonly string[] {
  return failure instanceof ConfigError ? failure.lines : [failure.complaint ?? failure.message];
}

async function plan(settings: TunnelSettings, options: PlanningOptions): Promise<TunnelPlan> {
  const { warn, previous } = options;
  const lastAnswers = [
    ...(previous?.targets ?? []),
    ...(previous?.keys.flatMap(({ targets }) => targets ?? []) ?? []),
  ];
  const lookUp = async (...asked: Parameters<typeof addressOf>) => {
    try {
      return await addressOf(...asked);
    } catch (error) {
      throw isUsersMistake(error) ? new UnresolvedError(error) : error;
    }
  };
  /** What is known of a target that is not looked up now. */
  const substitute = (target: string): TargetPlan | undefined => {
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
    const forever = () => new Promise<never>(() => {});
    // With -D, once one target is known the others do not keep the tunnel from starting.
    const enough = options.waitForDns
      ? Promise.any(lookUps).then(() => sleep(FURTHER_TARGETS_MS), forever)
      : forever();
    return Promise.all(
      targets.map(async (target, index) => {
        try {
          return (await Promise.race([lookUps[index]!, enough])) ?? substitute(target)!;
        } catch (error) {
          const known = substitute(target);
          if (known === undefined || !(error instanceof UnresolvedError)) throw error;
          for (const line of error.lines) options.unresolved(line);
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
  const targets = await lookUpTargets(settings.targets);
  const bind = settings.bind === undefined ? undefined : await first(settings.bind, "-b", parseBindAddress);
  checkList("allow", settings.allow);
  checkList("accept-proxy", settings.acceptProxy);
  checkList("penalty-exempt", settings.penaltyExempt);
  if ((settings.socketMode !== undefined || settings.socketOwner !== undefined) && source.kind !== "unix") {
    throw new ConfigError([
      `--socket-mode and --socket-owner are for UNIX sockets, which ${settings.source} is not`,
    ]);
  }

  const read = await keysOf(settings, options);
  /** By client: its keys share them. */
  const targetsOf = new Map<string, readonly TargetPlan[]>();
  const fingerprints = new Map<string, NamedKey>();
  const keys: KeyPlan[] = [];
  for (const key of read.keys) {
    const { name, path } = key;
    const print = fingerprint(key.secret);
    const same = fingerprints.get(print);
    if (same === undefined) fingerprints.set(print, key);
    else if (same.name === name) warn(`${same.path} and ${path} are the same key`);
    else warn(`Keys ${same.name} and ${name} are the same: all who hold it count as ${same.name}`);
    if (name === undefined) {
      keys.push({ secret: key.secret });
      continue;
    }
    const own = { ...definedOf(read.clients.get(name)), ...definedOf(settings.keySettings?.[name]) };
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
  for (const name of Object.keys(settings.keySettings ?? {}).filter((name) => !read.clients.has(name))) {
    const complaint = `There is no key ${name} in ${settings.key}`;
    // Its settings may stay behind when a client's last key is removed.
    if (!previous?.keys.some((key) => key.name === name)) throw new ConfigError([complaint]);
    warn(complaint);
  }

  const { name, mode, weak, requireForwardSecrecy, keepAlive, maxConnections } = settings;
  const { allow, acceptProxy, sendProxy, penaltyExempt, socketMode, socketOwner } = settings;
  return {
    name,
    mode,
    source,
    socketMode,
    socketOwner,
    targets,
    keys,
    bind,
    weak,
    requireForwardSecrecy,
    keepAlive,
    maxConnections,
    timeout: settings.timeout * 1000,
    idleTimeout: settings.idleTimeout * 1000,
    resolveInterval: settings.resolveInterval * 1000,
    allow,
    acceptProxy,
    sendProxy,
    penaltyExempt,
  };
}

/** One key for the side that connects, one or many for the one that accepts. */
async function keysOf(
  settings: TunnelSettings,
  { warn, refuse, ignore, previous }: PlanningOptions,
): Promise<KeysRead> {
  const clients = new Map();
  if (settings.key === "-" && previous !== undefined) {
    return { keys: previous.keys.map(({ secret }) => ({ secret })), clients };
  }
  const read =
    settings.mode === "decrypt"
      ? await readKeys(settings.key, { warn, refuse, ignore }, previous?.keys)
      : { keys: [{ secret: await readKey(settings.key, warn) }], clients };
  return { ...read, keys: read.keys.map((key) => keepSecret(key, previous?.keys ?? [])) };
}

/** A key with the secret of the previous plan if it is the same: so a plan's secrets live as long as they are in force. */
function keepSecret(key: NamedKey, previous: readonly KeyPlan[]): NamedKey {
  const same = previous.find(({ name, secret }) => name === key.name && Secret.equal(secret, key.secret));
  if (same === undefined || same.secret === key.secret) return key;
  key.secret.destroy();
  return { ...key, secret: same.secret };
}

function checkList(field: string, entries: readonly string[] | undefined): void {
  try {
    new AddressList(entries ?? []);
  } catch (error) {
    throw new ConfigError([`${field}: ${(error as Error).message}`]);
  }
}

/** An object without its undefined fields, so that they hide nothing when objects are merged. */
function definedOf<Fields extends object>(fields: Fields | undefined): Partial<Fields> {
  return Object.fromEntries(
    Object.entries(fields ?? {}).filter(([, value]) => value !== undefined),
  ) as Partial<Fields>;
}
