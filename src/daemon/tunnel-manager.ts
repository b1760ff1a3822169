/**
 * Applies the configuration to the running tunnels: at startup, on each reload and, with `-D`, when the names of a
 * waiting tunnel resolve.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { destroySecrets, type TunnelPlan } from "../config/plan.ts";
import type { TunnelReadiness } from "./observe/status-server.ts";
import { checkSources, isResolved, type Tunnels } from "./tunnels.ts";

/** Time between attempts to look up a tunnel's names, and maximum time to wait for the first, in ms. */
const DNS_RETRY_MS = 1000;

/** A configured tunnel. */
interface ConfiguredTunnel<Settings> {
  readonly settings: Settings;
  /** Descriptor of a listening socket opened by the service manager. */
  readonly inherited: number | undefined;
  /** Undefined until its own names have resolved. */
  plan: TunnelPlan | undefined;
  /** True if it is open and serves connections. */
  isServing: boolean;
}

/** Options of a TunnelManager. */
export interface ManagerOptions<Settings> {
  readonly tunnels: Tunnels;
  /**
   * Looks up a tunnel's names and reads its keys.
   *
   * @param previous - the active plan of the tunnel of the same name.
   * @returns undefined if the tunnel must wait for a name; this has been logged.
   */
  readonly makePlan: (
    settings: Settings,
    previous: TunnelPlan | undefined,
  ) => Promise<TunnelPlan | undefined>;
  /** True if tunnels wait for their names to resolve (`-D`). */
  readonly waitForDns: boolean;
  /** Logs why a waiting tunnel cannot be opened. */
  readonly logFailure: (error: unknown) => void;
}

export class TunnelManager<Settings extends { readonly name?: string | undefined }> {
  readonly #options: ManagerOptions<Settings>;
  #configured: readonly ConfiguredTunnel<Settings>[] = [];
  /** Settles when the last change is complete; changes are made one at a time. */
  #lastChange: Promise<void> = Promise.resolve();
  #stopped = false;

  constructor(options: ManagerOptions<Settings>) {
    this.#options = options;
  }

  /**
   * Makes the settings active. With `-D`, a tunnel whose names do not resolve is opened later, when they do.
   *
   * @param inherited - descriptors of listening sockets opened by the service manager, in the order of the tunnels.
   * @throws errors of `makePlan` and of `Tunnels.change()`, or SameSourceError; the previous settings stay active.
   */
  async load(settings: readonly Settings[], inherited: readonly number[] = []): Promise<void> {
    const { waitForDns } = this.#options;
    const next = settings.map(
      (each, index): ConfiguredTunnel<Settings> => ({
        settings: each,
        inherited: inherited[index],
        plan: undefined,
        isServing: false,
      }),
    );
    const attempts = next.map((tunnel) => this.#makePlan(tunnel));
    const all = Promise.allSettled(attempts);
    const results = await (waitForDns ? Promise.race([all, sleep(DNS_RETRY_MS)]) : all);
    const plansOf = (tunnels: readonly ConfiguredTunnel<Settings>[]) => tunnels.map(({ plan }) => plan);
    const previous = plansOf(this.#configured);
    try {
      for (const result of results ?? []) if (result.status === "rejected") throw result.reason;
      await this.#change(next);
    } catch (error) {
      destroySecrets(plansOf(next), plansOf(this.#configured));
      throw error;
    }
    // A plan that is still being made may reuse secrets of the previous one.
    if (next.every(({ plan }) => plan !== undefined)) destroySecrets(previous, plansOf(next));
    if (!waitForDns) return;
    for (const [index, tunnel] of next.entries()) void this.#retry(tunnel, () => attempts[index]!);
  }

  /**
   * Resolves with the readiness of each tunnel.
   *
   * @param draining - true if the daemon is about to exit.
   */
  async readiness(draining: boolean): Promise<TunnelReadiness[]> {
    if (draining) {
      return this.#configured.map(({ settings: { name } }) => ({ tunnel: name, state: "draining" }));
    }
    const reachable = await this.#options.tunnels.areReachable();
    return this.#configured.map(({ settings: { name }, plan }) => ({
      tunnel: name,
      state: stateOf(plan, plan && reachable.get(plan)),
    }));
  }

  /** Stops waiting for names to resolve. */
  stop(): void {
    this.#stopped = true;
  }

  #isConfigured(tunnel: ConfiguredTunnel<Settings>): boolean {
    return !this.#stopped && this.#configured.includes(tunnel);
  }

  async #makePlan(tunnel: ConfiguredTunnel<Settings>): Promise<void> {
    const { name } = tunnel.settings;
    const previous = tunnel.plan ?? this.#configured.find(({ settings }) => settings.name === name)?.plan;
    tunnel.plan = await this.#options.makePlan(tunnel.settings, previous);
  }

  /** Retries until the tunnel's names resolve and it serves connections, or it is no longer configured. */
  async #retry(tunnel: ConfiguredTunnel<Settings>, firstAttempt: () => Promise<void>): Promise<void> {
    let attempt = firstAttempt;
    while (this.#isConfigured(tunnel) && !tunnel.isServing) {
      try {
        await attempt();
        if (tunnel.plan !== undefined && isResolved(tunnel.plan)) await this.#change(this.#configured);
      } catch (error) {
        this.#options.logFailure(error);
      }
      if (tunnel.isServing) return;
      await sleep(DNS_RETRY_MS);
      attempt = () => this.#makePlan(tunnel);
    }
  }

  #change(next: readonly ConfiguredTunnel<Settings>[]): Promise<void> {
    const change = async () => {
      const descriptors = new Map<TunnelPlan, number>();
      for (const { plan, inherited } of next) {
        if (plan !== undefined && inherited !== undefined) descriptors.set(plan, inherited);
      }
      const plans = next.flatMap(({ plan }) => plan ?? []);
      checkSources(plans);
      await this.#options.tunnels.applyPlans(plans, descriptors);
      this.#configured = next;
      for (const tunnel of next) {
        const { plan } = tunnel;
        tunnel.isServing = plan !== undefined && plans.includes(plan) && isResolved(plan);
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
