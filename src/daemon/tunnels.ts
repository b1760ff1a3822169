/** Opens, reloads and drains the daemon's tunnels. */
import { realpathSync } from "node:fs";
import { SocketAddress } from "node:net";
import { join, parse } from "node:path";
import type { TunnelPlan } from "../config/plan.ts";
import { SpipedError } from "../errors.ts";
import { formatAddress } from "../net/address.ts";
import { systemErrorText } from "../net/system-error.ts";
import type { Log } from "./observe/log.ts";
import { PrivilegeError } from "./process/privileges.ts";
import { applyPermissions, type Tunnel, type TunnelFactory } from "./tunnel.ts";

/** A tunnel's address could not be bound or listened on; `cause` is the system's error. */
export class BindError extends SpipedError {
  readonly plan: TunnelPlan;

  constructor(plan: TunnelPlan, cause: unknown) {
    super("ERR_SPIPED_BIND", systemErrorText(cause), { cause });
    this.plan = plan;
  }
}

interface ActiveTunnel {
  readonly tunnel: Tunnel;
  readonly plan: TunnelPlan;
  /** True if `plan` was passed to `tunnel.serve()`. */
  isServed: boolean;
  /** True if `tunnel` has been served, with this plan or an earlier one. */
  isListening: boolean;
}

/** The daemon's tunnels, identified by the addresses that they listen on. */
export class Tunnels {
  readonly #factory: TunnelFactory;
  readonly #log: Log;
  #active: readonly ActiveTunnel[] = [];
  /** Tunnels removed by a reload, until they have drained. */
  readonly #removed = new Map<Tunnel, Promise<void>>();
  #started = false;
  #draining = false;

  constructor(factory: TunnelFactory, log: Log) {
    this.#factory = factory;
    this.#log = log;
  }

  /** Starts serving the open tunnels. Call once, after dropping privileges. */
  async start(): Promise<void> {
    this.#started = true;
    await this.#serveAll();
  }

  /**
   * Makes the plans active: opens new addresses, drains tunnels whose address is no longer used, and applies the plans
   * of the others to later connections. Does nothing while the daemon drains.
   *
   * @param inherited - descriptors of listening sockets opened by the service manager.
   * @throws BindError, or PrivilegeError if a socket's owner does not exist. If an address cannot be opened, the
   * previous plans stay active, but permissions of UNIX sockets may have changed.
   */
  async applyPlans(plans: readonly TunnelPlan[], inherited: ReadonlyMap<TunnelPlan, number>): Promise<void> {
    const opened: Tunnel[] = [];
    const close = () => {
      for (const tunnel of opened) tunnel.destroy();
    };
    const next: ActiveTunnel[] = [];
    try {
      for (const plan of plans) {
        const known = this.#active.find((other) => sourceId(other.plan) === sourceId(plan));
        if (known === undefined) opened.push(await this.#open(plan, inherited.get(plan)));
        else await attributeTo(plan, () => applyPermissions(plan, known.plan));
        if (known?.plan === plan) next.push(known);
        else {
          const { tunnel, isListening } = known ?? { tunnel: opened.at(-1)!, isListening: false };
          next.push({ plan, tunnel, isListening, isServed: false });
        }
      }
    } catch (error) {
      close();
      throw error;
    }
    if (this.#draining) {
      close();
      return;
    }
    const previous = this.#active;
    this.#active = next;
    for (const active of previous) {
      const { tunnel } = active;
      if (next.some((other) => other.tunnel === tunnel)) continue;
      this.#removed.set(
        tunnel,
        this.#drainOne(active).then(() => void this.#removed.delete(tunnel)),
      );
    }
    if (this.#started) await this.#serveAll();
  }

  /** Stops listening; resolves when no connection is left, including those of removed tunnels. */
  async drain(): Promise<void> {
    this.#draining = true;
    await Promise.all([...this.#active.map((active) => this.#drainOne(active)), ...this.#removed.values()]);
  }

  /** Resolves with the number of open connections, including those of removed tunnels. */
  async countConnections(): Promise<number> {
    const tunnels = [...this.#active.map(({ tunnel }) => tunnel), ...this.#removed.keys()];
    const counts = await Promise.all(tunnels.map((tunnel) => tunnel.countConnections()));
    return counts.reduce((sum, count) => sum + count, 0);
  }

  #drainOne({ plan, tunnel, isListening }: ActiveTunnel): Promise<void> {
    if (isListening) this.#log.info(`${logPrefix(plan)}stopped listening on ${formatAddress(plan.source)}`);
    return tunnel.drain();
  }

  /** Closes all tunnels and connections immediately. */
  destroy(): void {
    for (const { tunnel } of this.#active) tunnel.destroy();
    for (const tunnel of this.#removed.keys()) tunnel.destroy();
  }

  /** Resolves with whether each tunnel's target is reachable, by plan; undefined if no process has answered. */
  async areReachable(): Promise<ReadonlyMap<TunnelPlan, boolean | undefined>> {
    return new Map(
      await Promise.all(
        this.#active.map(async ({ plan, tunnel }) => [plan, await tunnel.isReachable()] as const),
      ),
    );
  }

  async #open(plan: TunnelPlan, inherited?: number): Promise<Tunnel> {
    return attributeTo(plan, () => this.#factory.open(plan, inherited));
  }

  /** Serves the plans that are not served yet, except those without a resolved target. */
  async #serveAll(): Promise<void> {
    for (const active of this.#active) {
      const { plan, tunnel } = active;
      if (active.isServed || !isResolved(plan)) continue;
      // Set before the await: with -D, this method may be called again meanwhile.
      active.isServed = true;
      await attributeTo(plan, () => tunnel.serve(plan));
      if (active.isListening) continue;
      active.isListening = true;
      this.#log.info(`${logPrefix(plan)}listening on ${formatAddress(plan.source)}, ${purposeOf(plan)}`);
    }
  }
}

/** Returns true if at least one target has resolved. */
export function isResolved({ targets }: TunnelPlan): boolean {
  return targets.some(({ addresses }) => addresses.length > 0);
}

/** Two tunnels listen on the same address. */
class SameSourceError extends SpipedError {
  constructor(names: readonly (string | undefined)[], { source }: TunnelPlan) {
    super(
      "ERR_SPIPED_SAME_SOURCE",
      `tunnels ${names.join(" and ")} listen on the same address: ${formatAddress(source)}`,
    );
  }
}

/** @throws SameSourceError if two plans have the same source, even if written differently. */
export function checkSources(plans: readonly TunnelPlan[]): void {
  const names = new Map<string, string | undefined>();
  for (const plan of plans) {
    const id = sourceId(plan);
    if (names.has(id)) throw new SameSourceError([names.get(id), plan.name], plan);
    names.set(id, plan.name);
  }
}

/** Returns the prefix of log messages about a tunnel. */
function logPrefix({ name }: TunnelPlan): string {
  return name === undefined ? "" : `${name}: `;
}

function purposeOf({ mode, targets }: TunnelPlan): string {
  const names = targets.map(({ address }) => address.text).join(", ");
  return `${mode === "encrypt" ? "encrypting" : "decrypting"} to ${names}`;
}

/** Returns an ID that is the same for all spellings of an address. */
function sourceId({ source }: TunnelPlan): string {
  if (source.kind === "tcp") {
    const { host: address, port, family } = source;
    const canonical = new SocketAddress({ address, port, family: family === 6 ? "ipv6" : "ipv4" });
    return `${canonical.address} ${port}`;
  }
  const { dir, base } = parse(source.path);
  try {
    return join(realpathSync(dir), base);
  } catch {
    // The directory does not exist; the bind will fail.
    return source.path;
  }
}

/** Wraps errors in a BindError that has the plan, except PrivilegeError. */
async function attributeTo<Result>(
  plan: TunnelPlan,
  action: () => Result | Promise<Result>,
): Promise<Result> {
  try {
    return await action();
  } catch (error) {
    throw error instanceof PrivilegeError ? error : new BindError(plan, error);
  }
}
