/** All tunnels of a process, and what becomes of them when the plans change. */
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

/** A tunnel's address could not be opened; `cause` is the system's error. */
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
  /** Whether `tunnel` has been given the plan, whose keys are its own from then on. */
  isServed: boolean;
  /** Whether it has been given a plan. */
  isListening: boolean;
}

/** The tunnels of a daemon, by the addresses that they listen on. */
export class Tunnels {
  readonly #factory: TunnelFactory;
  readonly #log: Log;
  #active: readonly ActiveTunnel[] = [];
  /** Tunnels that a reload has removed, until their last connection has ended. */
  readonly #removed = new Map<Tunnel, Promise<void>>();
  #started = false;
  #draining = false;

  constructor(factory: TunnelFactory, log: Log) {
    this.#factory = factory;
    this.#log = log;
  }

  /** Serves the tunnels that are open. To be called once, after privileges are dropped. */
  async start(): Promise<void> {
    this.#started = true;
    await this.#serveAll();
  }

  /**
   * Makes plans the active ones: opens addresses that are new, drains the tunnels of those that are gone, and changes
   * what holds for connections to come of the others. While the daemon drains, nothing changes any more.
   *
   * @param inherited descriptors of listening sockets that the service manager has opened for plans.
   * @throws BindError if a new address can't be opened; nothing has changed then.
   */
  async change(plans: readonly TunnelPlan[], inherited: ReadonlyMap<TunnelPlan, number>): Promise<void> {
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

  /** Stops listening; resolves when no connection is left, of tunnels that a reload has removed either. */
  async drain(): Promise<void> {
    this.#draining = true;
    await Promise.all([...this.#active.map((active) => this.#drainOne(active)), ...this.#removed.values()]);
  }

  /** How many connections are open, those of tunnels that a reload has removed included. */
  async countConnections(): Promise<number> {
    const tunnels = [...this.#active.map(({ tunnel }) => tunnel), ...this.#removed.keys()];
    const counts = await Promise.all(tunnels.map((tunnel) => tunnel.countConnections()));
    return counts.reduce((sum, count) => sum + count, 0);
  }

  #drainOne({ plan, tunnel, isListening }: ActiveTunnel): Promise<void> {
    if (isListening) this.#log.info(`${prefixOf(plan)}stopped listening on ${formatAddress(plan.source)}`);
    return tunnel.drain();
  }

  /** Ends everything now. */
  destroy(): void {
    for (const { tunnel } of this.#active) tunnel.destroy();
    for (const tunnel of this.#removed.keys()) tunnel.destroy();
  }

  /** True for each tunnel whose target can be reached, by the tunnel's plan; undefined if nobody answered. */
  async reachable(): Promise<ReadonlyMap<TunnelPlan, boolean | undefined>> {
    return new Map(
      await Promise.all(
        this.#active.map(async ({ plan, tunnel }) => [plan, await tunnel.reachable()] as const),
      ),
    );
  }

  async #open(plan: TunnelPlan, inherited?: number): Promise<Tunnel> {
    return attributeTo(plan, () => this.#factory.open(plan, inherited));
  }

  /** Serves what is not served yet, but for tunnels of which no target has been looked up yet. */
  async #serveAll(): Promise<void> {
    for (const active of this.#active) {
      const { plan, tunnel } = active;
      if (active.isServed || !isResolved(plan)) continue;
      // Set before the wait: with -D another call may come while this one waits.
      active.isServed = true;
      await attributeTo(plan, () => tunnel.serve(plan));
      if (active.isListening) continue;
      active.isListening = true;
      this.#log.info(`${prefixOf(plan)}listening on ${formatAddress(plan.source)}, ${purposeOf(plan)}`);
    }
  }
}

/** False for a plan that waits until a target's name can be looked up. */
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

/** @throws SameSourceError if two of the plans have the same address, however it was written. */
export function checkSources(plans: readonly TunnelPlan[]): void {
  const names = new Map<string, string | undefined>();
  for (const plan of plans) {
    const id = sourceId(plan);
    if (names.has(id)) throw new SameSourceError([names.get(id), plan.name], plan);
    names.set(id, plan.name);
  }
}

/** What messages about a tunnel begin with. */
function prefixOf({ name }: TunnelPlan): string {
  return name === undefined ? "" : `${name}: `;
}

function purposeOf({ mode, targets }: TunnelPlan): string {
  const names = targets.map(({ address }) => address.text).join(", ");
  return `${mode === "encrypt" ? "encrypting" : "decrypting"} to ${names}`;
}

/** The same for all ways to write an address. */
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
    // There is no such directory, as the bind will report.
    return source.path;
  }
}

/** Names the plan in an error, unless it is about an owner. */
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
