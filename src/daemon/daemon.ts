/** The daemon's lifecycle: start, ready, reload, drain, stop. */
import { isDeepStrictEqual } from "node:util";
import { type CommandLineConfig, readConfig } from "../config/config.ts";
import { ConfigError, UsageError } from "../config/config-error.ts";
import { planTunnel } from "../config/make-plan.ts";
import { PROCESS_OPTIONS, PROGRAM } from "../config/options.ts";
import type { TunnelPlan } from "../config/plan.ts";
import type { ProcessSettings } from "../config/process-settings.ts";
import type { TunnelSettings } from "../config/tunnel-settings.ts";
import { systemErrorText } from "../net/system-error.ts";
import { startTimeout } from "../net/timers.ts";
import { chooseLog } from "./observe/choose-log.ts";
import { logDrain } from "./observe/drain-log.ts";
import type { Log } from "./observe/log.ts";
import type { BearerToken } from "./observe/status-access.ts";
import { Syslog } from "./observe/syslog.ts";
import { stderrLog } from "./observe/text-log.ts";
import { writePidFile } from "./process/pid-file.ts";
import { dropPrivileges, PrivilegeError } from "./process/privileges.ts";
import { createNotifier, inheritedListenFds } from "./process/service-manager.ts";
import { onReloadSignal, onTerminationSignal } from "./process/signals.ts";
import { describeFailure } from "./start-failure.ts";
import { TunnelManager } from "./tunnel-manager.ts";
import { Tunnels } from "./tunnels.ts";
import { type Backend, makeBackend } from "./workers/backend.ts";

/**
 * Runs the daemon until it has drained.
 *
 * @param reportReady - reports readiness to the parent; undefined unless daemonized.
 * @returns the exit status.
 */
export async function runDaemon(
  commandLine: CommandLineConfig,
  version: string,
  reportReady: (() => void) | undefined,
): Promise<number> {
  const config = await readConfig(commandLine);
  const daemon = new Daemon(commandLine, config.process, version, reportReady);
  const onFirstTermination = onTerminationSignal(() => daemon.cleanUp());
  const setReload = onReloadSignal();
  try {
    await daemon.bind(config.tunnels);
    // Clients can connect from here on, so termination drains.
    const terminated = onFirstTermination();
    await daemon.serve();
    // A reload requested during startup runs only after READY=1 was sent.
    void daemon.notifyReady().then(() => setReload(() => daemon.reload()));
    await terminated;
    await daemon.drain();
    return 0;
  } finally {
    daemon.release();
  }
}

/**
 * The daemon's process. The order of startup is that of Tarsnap's spiped: resolve addresses, read keys, bind, write the
 * pid file, drop privileges, serve. With `-D` the pid file is written first.
 */
class Daemon {
  readonly #commandLine: CommandLineConfig;
  readonly #settings: ProcessSettings;
  readonly #version: string;
  readonly #reportReady: (() => void) | undefined;
  readonly #stderr = stderrLog(PROGRAM);
  readonly #inherited = inheritedListenFds();
  readonly #notifier = createNotifier((reason) => this.#stderr.warn(reason));
  /** What `bind()` makes. */
  #parts: Parts | undefined;
  #token: BearerToken | undefined;
  #draining = false;
  #removePidFile = () => {};
  #stopStatus = () => {};
  /** Warnings logged about files that are not keys; each is logged once per process. */
  readonly #ignored = new Set<string>();
  /** Other warnings; each is logged once per reload, although -D makes plans repeatedly. */
  readonly #warned = new Set<string>();

  constructor(
    commandLine: CommandLineConfig,
    settings: ProcessSettings,
    version: string,
    reportReady: (() => void) | undefined,
  ) {
    this.#commandLine = commandLine;
    this.#settings = settings;
    this.#version = version;
    this.#reportReady = reportReady;
  }

  /** Makes the plans and binds the addresses. */
  async bind(settings: readonly TunnelSettings[]): Promise<void> {
    const { waitForDns, syslog: useSyslog, noWarmUp } = this.#settings;
    if (waitForDns) {
      this.#claimPidFile();
      this.#reportReady?.();
    }
    this.#token = await readStatusToken(this.#settings, this.#stderr);
    const syslog = useSyslog ? new Syslog(PROGRAM, (reason) => this.#stderr.warn(reason)) : undefined;
    const log = await chooseLog(this.#settings, this.#stderr, syslog);
    log.info(`starting, version ${this.#version}`);
    // A connection may already be waiting at an inherited socket.
    const warmsUp = !noWarmUp && this.#inherited.length === 0;
    const backend = await makeBackend(this.#settings, log, warmsUp);
    const tunnels = new Tunnels(backend.factory, log);
    const manager = new TunnelManager<TunnelSettings>({
      tunnels,
      makePlan: (tunnel, previous) => this.#makePlan(tunnel, previous, log),
      waitForDns,
      logFailure: (error) => logFailure(log, error),
    });
    this.#parts = { log, syslog, backend, tunnels, manager };
    await manager.load(settings, this.#inherited).catch((error: unknown) => {
      throw error instanceof UsageError ? error : describeFailure(error);
    });
  }

  /** Drops privileges and accepts connections. */
  async serve(): Promise<void> {
    const { backend, tunnels } = this.#bound;
    const { waitForDns, user } = this.#settings;
    try {
      if (!waitForDns) this.#claimPidFile();
      this.#stopStatus = await this.#startStatus();
      if (user !== undefined) changeUser(user, backend.isShared);
      await backend.start();
      await tunnels.start().catch((error: unknown) => {
        throw describeFailure(error);
      });
    } catch (error) {
      this.cleanUp();
      throw error;
    }
    if (!waitForDns) this.#reportReady?.();
  }

  /** Resolves when the service manager was told, or cannot be told, that the daemon is ready. */
  notifyReady(): Promise<void> {
    return this.#notifier.notify("READY=1");
  }

  /** Reads the settings, keys and token again; on failure the previous configuration stays active. */
  async reload(): Promise<void> {
    if (this.#draining) return;
    const { log, manager } = this.#bound;
    await this.#notifier.notify("RELOADING=1");
    log.info("reloading");
    this.#warned.clear();
    try {
      const next = await readConfig(this.#commandLine);
      const isSameTokenFile = next.process.metricsTokenFile === this.#settings.metricsTokenFile;
      const token = isSameTokenFile ? await readStatusToken(this.#settings, log) : this.#token;
      await manager.load(next.tunnels);
      if (this.#draining) return;
      this.#token = token;
      log.info("reloaded");
      for (const name of changedSettings(this.#settings, next.process))
        log.warn(`${name} has changed: restart to apply it`);
    } catch (error) {
      if (this.#draining) return;
      logFailure(log, error);
      log.warn("reload failed; keeping the previous configuration");
    }
    await this.notifyReady();
  }

  /** Stops listening, and waits until the connections have closed. */
  async drain(): Promise<void> {
    const { log, syslog, backend, tunnels, manager } = this.#bound;
    const { drainTimeout } = this.#settings;
    this.#draining = true;
    void this.#notifier.notify("STOPPING=1");
    log.info("stopping");
    manager.stop();
    backend.stop();
    const stopDrainLog = logDrain(log, () => tunnels.countConnections());
    const stopTimeout = startTimeout(drainTimeout, () => {
      log.warn(`drain timeout (${drainTimeout / 1000} s): closing the remaining connections`);
      tunnels.destroy();
    });
    await tunnels.drain();
    stopTimeout();
    stopDrainLog();
    await backend.exited();
    log.info("stopped");
    await syslog?.close();
  }

  /** Closes everything at once. */
  cleanUp(): void {
    this.#destroyTunnels();
    this.#removePidFile();
  }

  /** Releases what no connection needs. */
  release(): void {
    this.#stopStatus();
    this.#removePidFile();
  }

  get #bound(): Parts {
    if (this.#parts === undefined) throw new Error("the daemon is not bound");
    return this.#parts;
  }

  #destroyTunnels(): void {
    this.#parts?.tunnels.destroy();
    this.#parts?.backend.destroy();
  }

  #makePlan(settings: TunnelSettings, previous: TunnelPlan | undefined, log: Log) {
    const warnOnce = (message: string, logged: Set<string>) => {
      if (!logged.has(message)) log.warn(message);
      logged.add(message);
    };
    return planTunnel(settings, {
      waitForDns: this.#settings.waitForDns,
      warn: (message) => warnOnce(message, this.#warned),
      onUnresolved: (message) => log.warn(message),
      onRejected: (message) => warnOnce(message, this.#warned),
      onIgnored: (message) => warnOnce(message, this.#ignored),
      previous,
    });
  }

  /** Starts the status server if there is one. Returns a function that stops it. */
  async #startStatus(): Promise<() => void> {
    const { log, backend, manager } = this.#bound;
    const { metrics } = this.#settings;
    if (metrics === undefined || backend.registry === undefined) return () => {};
    const status = await import("./observe/start-status.ts");
    const source = {
      version: this.#version,
      registry: backend.registry,
      readiness: () => manager.readiness(this.#draining),
      workers: () => backend.workers(),
    };
    return status.startStatus(
      { ...this.#settings, metrics },
      source,
      () => this.#token,
      (line) => log.warn(line),
    );
  }

  /** Writes the pid file of a daemonized process. */
  #claimPidFile(): void {
    if (this.#reportReady === undefined) return;
    const { pidFile } = this.#settings;
    try {
      this.#removePidFile = writePidFile(pidFile);
    } catch (error) {
      throw new ConfigError([`fopen(${pidFile}): ${systemErrorText(error)}`, "Failed to daemonize"]);
    }
  }
}

/** The parts of a daemon that is bound. */
interface Parts {
  readonly log: Log;
  readonly syslog: Syslog | undefined;
  readonly backend: Backend;
  readonly tunnels: Tunnels;
  readonly manager: TunnelManager<TunnelSettings>;
}

function logFailure(log: Log, error: unknown): void {
  for (const line of describeFailure(error).lines) log.warn(line);
}

/** Returns the names of the process settings that differ; they are applied only at startup. */
function changedSettings(current: ProcessSettings, next: ProcessSettings): string[] {
  const names = Object.keys(PROCESS_OPTIONS) as (keyof typeof PROCESS_OPTIONS)[];
  return names
    .filter((name) => !isDeepStrictEqual(current[name], next[name]))
    .map((name) => PROCESS_OPTIONS[name].long);
}

async function readStatusToken(
  { metricsTokenFile }: ProcessSettings,
  log: Log,
): Promise<BearerToken | undefined> {
  if (metricsTokenFile === undefined) return undefined;
  const { readToken } = await import("./observe/start-status.ts");
  return readToken(metricsTokenFile, (message) => log.warn(message));
}

/** @param isShared - true if workers are started afterwards. */
function changeUser(spec: string, isShared: boolean): void {
  try {
    dropPrivileges(spec, isShared);
  } catch (error) {
    if (error instanceof PrivilegeError) throw new ConfigError([error.message, "Failed to drop privileges"]);
    throw new ConfigError([`Failed to drop privileges: ${systemErrorText(error)}`]);
  }
}
