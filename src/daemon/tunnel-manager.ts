/**
 * Keeps the running tunnels as the configuration wants them: at the start, at each reload, and, with `-D`, whenever the
 * names of a tunnel that had to wait can be looked up.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { destroySecrets, type TunnelPlan } from "../config/plan.ts";
import type { TunnelReadiness } from "./observe/status-server.ts";
import { checkSources, isResolved, type Tunnels } from "./tunnels.ts";

/** How long to wait between two attempts to look up the names of a tunnel, and for those that take longer, ms. */
const DNS_RETRY_MS = 1000;

/** A tunnel that is wanted. */
interface Wanted<Settings> {
  readonly settings: Settings;
  /** Descriptor of a listening socket that the service manager has opened for it. */
  readonly inherited: number | undefined;
  /** Undefined until its own names can be looked up. */
  plan: TunnelPlan | undefined;
  /** Whether it is open and its connections are served. */
  isServed: boolean;
}

/** What a manager needs. */
export interface ManagerOptions<Settings> {
  readonly tunnels: Tunnels;
  /**
   * Looks up a tunnel's names and reads its keys.
   *
   * @param previous the plan of the tunnel of the same name that is active now.
   * @returns undefined if it must wait for a name, which has been logged by then.
   */
  readonly makePlan: (
    settings: Settings,
    previous: TunnelPlan | undefined,
  ) => Promise<TunnelPlan | undefined>;
  /** Whether tunnels wait for their names (`-D`). */
  readonly waitForDns: boolean;
  /** Logs why a tunnel that had waited can't be opened. */
  readonly logFailure: (error: unknown) => void;
}

export class TunnelManager<Settings extends { readonly name?: string | undefined }> {
  readonly #options: ManagerOptions<Settings>;
  #wanted: readonly Wanted<Settings>[] = [];
  /** Changes of the tunnels are made one after the other. */
  #lastChange: Promise<void> = Promise.resolve();

  #stopped = false;

  constructor(options: ManagerOptions<Settings>) {
    this.#options = options;
  }

  /**
   * Makes settings the active ones. With `-D`, tunnels whose names can't be looked up come later, each when it can.
   *
   * @param inherited descriptors of listening sockets that the service manager has opened, for the tunnels in their order.
   * @throws what `makePlan` throws, SameSourceError or BindError; nothing has changed then.
   */
  async load(settings: readonly Settings[], inherited: readonly number[] = []): Promise<void> {
    const { waitForDns } = this.#options;
    const next = settings.map(
      (each, index): Wanted<Settings> => ({
        settings: each,
        inherited: inherited[index],
        plan: undefined,
        isServed: false,
      }),
    );
    const attempts = next.map((wanted) => this.#plan(wanted));
    const all = Promise.allSettled(attempts);
    const results = await (waitForDns ? Promise.race([all, sleep(DNS_RETRY_MS)]) : all);
    const plansOf = (wanted: readonly Wanted<Settings>[]) => wanted.map(({ plan }) => plan);
    const previous = plansOf(this.#wanted);
    try {
      for (const result of results ?? []) if (result.status === "rejected") throw result.reason;
      await this.#change(next);
    } catch (error) {
      destroySecrets(plansOf(next), plansOf(this.#wanted));
      throw error;
    }
    // A plan that is still being made may take over secrets.
    if (next.every(({ plan }) => plan !== undefined)) destroySecrets(previous, plansOf(next));
    if (!waitForDns) return;
    for (const [index, wanted] of next.entries()) void this.#retry(wanted, () => attempts[index]!);
  }

  /**
   * Whether each tunnel can serve clients.
   *
   * @param draining whether the daemon is about to exit.
   */
  async readiness(draining: boolean): Promise<TunnelReadiness[]> {
    if (draining) {
      return this.#wanted.map(({ settings: { name } }) => ({ tunnel: name, state: "draining" }));
    }
    const reachable = await this.#options.tunnels.reachable();
    return this.#wanted.map(({ settings: { name }, plan }) => ({
      tunnel: name,
      state: stateOf(plan, plan && reachable.get(plan)),
    }));
  }

  /** Stops waiting for names. */
  stop(): void {
    this.#stopped = true;
  }

  #isWanted(wanted: Wanted<Settings>): boolean {
    return !this.#stopped && this.#wanted.includes(wanted);
  }

  async #plan(wanted: Wanted<Settings>): Promise<void> {
    const { name } = wanted.settings;
    const previous = wanted.plan ?? this.#wanted.find(({ settings }) => settings.name === name)?.plan;
    wanted.plan = await this.#options.makePlan(wanted.settings, previous);
  }

  /** Tries until a tunnel's names could be looked up and it is served, or another reload has come. */
  async #retry(wanted: Wanted<Settings>, firstAttempt: () => Promise<void>): Promise<void> {
    let attempt = firstAttempt;
    while (this.#isWanted(wanted) && !wanted.isServed) {
      try {
        await attempt();
        if (wanted.plan !== undefined && isResolved(wanted.plan)) await this.#change(this.#wanted);
      } catch (error) {
        this.#options.logFailure(error);
      }
      if (wanted.isServed) return;
      await sleep(DNS_RETRY_MS);
      attempt = () => this.#plan(wanted);
    }
  }

  #change(next: readonly Wanted<Settings>[]): Promise<void> {
    const change = async () => {
      const descriptors = new Map<TunnelPlan, number>();
      for (const { plan, inherited } of next) {
        if (plan !== undefined && inherited !== undefined) descriptors.set(plan, inherited);
      }
      const plans = next.flatMap(({ plan }) => plan ?? []);
      checkSources(plans);
      await this.#options.tunnels.change(plans, descriptors);
      this.#wanted = next;
      for (const wanted of next) {
        const { plan } = wanted;
        wanted.isServed = plan !== undefined && plans.includes(plan) && isResolved(plan);
      }
    };
    const changed = this.#lastChange.then(change);
    this.#lastChange = changed.catch(() => {});
    return changed;
  }
}

function stateOf(plan: TunnelPlan | undefined, reachable: boolean | undefined): string {
  if (plan === undefined || !isResolved(plan)) return "waiting for DNS";
  if (reachable === undefined) return "starting";
  return reachable ? "ready" : "target unreachable";
}
