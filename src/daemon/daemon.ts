/** The daemon's lifecycle: start, ready, reload, drain, stop. */
import { isDeepStrictEqual } from "node:util";
import { type CommandLineConfig, type Config, readConfig } from "../config/config.ts";
import { ConfigError, UsageError } from "../config/config-error.ts";
import { planTunnel } from "../config/make-plan.ts";
import { PROCESS_OPTIONS, PROGRAM } from "../config/options.ts";
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
import { makeBackend } from "./workers/backend.ts";

/**
 * Runs the daemon until it has drained. The order of startup is that of Tarsnap's spiped: resolve addresses, read keys,
 * bind, write the pid file, drop privileges, serve. With `-D` the pid file is written first.
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
  const settings = config.process;
  const stderr = stderrLog(PROGRAM);
  const inherited = inheritedListenFds();
  const notifier = createNotifier((reason) => stderr.warn(reason));
  let removePidFile = () => {};
  let stopStatus = () => {};
  let destroyTunnels = () => {};
  const cleanUp = () => {
    destroyTunnels();
    removePidFile();
  };
  const onFirstTermination = onTerminationSignal(cleanUp);
  const setReload = onReloadSignal();
  try {
    if (settings.waitForDns) {
      removePidFile = claimPidFile(settings, reportReady);
      reportReady?.();
    }
    let draining = false;
    let token = await readStatusToken(settings, stderr);
    /** Warnings logged about files that are not keys; each is logged once per process. */
    const ignored = new Set<string>();
    /** Other warnings; each is logged once per reload, although -D makes plans repeatedly. */
    const warned = new Set<string>();
    const warnOnce = (message: string, logged: Set<string>) => {
      if (!logged.has(message)) log.warn(message);
      logged.add(message);
    };
    const syslog = settings.syslog ? new Syslog(PROGRAM, (reason) => stderr.warn(reason)) : undefined;
    const log = await chooseLog(settings, stderr, syslog);
    log.info(`starting, version ${version}`);
    const backend = await makeBackend(settings, log);
    const tunnels = new Tunnels(backend.factory, log);
    const manager = new TunnelManager<TunnelSettings>({
      tunnels,
      makePlan: (tunnel, previous) =>
        planTunnel(tunnel, {
          waitForDns: settings.waitForDns,
          warn: (message) => warnOnce(message, warned),
          onUnresolved: (message) => log.warn(message),
          onRejected: (message) => warnOnce(message, warned),
          onIgnored: (message) => warnOnce(message, ignored),
          previous,
        }),
      waitForDns: settings.waitForDns,
      logFailure: (error) => {
        for (const line of describeFailure(error).lines) log.warn(line);
      },
    });
    destroyTunnels = () => {
      tunnels.destroy();
      backend.destroy();
    };
    await manager.load(config.tunnels, inherited).catch((error: unknown) => {
      throw error instanceof UsageError ? error : describeFailure(error);
    });
    // Clients can connect from here on, so termination drains.
    const terminated = onFirstTermination();
    try {
      if (!settings.waitForDns) removePidFile = claimPidFile(settings, reportReady);
      stopStatus = await startStatus();
      if (settings.user !== undefined) changeUser(settings.user, backend.isShared);
      backend.start();
      await tunnels.start().catch((error: unknown) => {
        throw describeFailure(error);
      });
    } catch (error) {
      cleanUp();
      throw error;
    }
    if (!settings.waitForDns) reportReady?.();
    // A reload requested during startup runs only after READY=1 was sent.
    void notifier.notify("READY=1").then(() => setReload(reload));
    await terminated;
    draining = true;
    void notifier.notify("STOPPING=1");
    log.info("stopping");
    manager.stop();
    backend.stop();
    const stopDrainLog = logDrain(log, () => tunnels.countConnections());
    const stopTimeout = startTimeout(settings.drainTimeout, () => {
      log.warn(`drain timeout (${settings.drainTimeout / 1000} s): closing the remaining connections`);
      destroyTunnels();
    });
    await tunnels.drain();
    stopTimeout();
    stopDrainLog();
    await backend.exited();
    log.info("stopped");
    await syslog?.close();
    return 0;

    async function startStatus(): Promise<() => void> {
      const { metrics } = settings;
      if (metrics === undefined || backend.registry === undefined) return () => {};
      const status = await import("./observe/start-status.ts");
      const source = {
        version,
        registry: backend.registry,
        readiness: () => manager.readiness(draining),
        workers: () => backend.workers(),
      };
      return status.startStatus(
        { ...settings, metrics },
        source,
        () => token,
        (line) => log.warn(line),
      );
    }

    /** Reads the settings, keys and token again; on failure the previous configuration stays active. */
    async function reload(): Promise<void> {
      if (draining) return;
      await notifier.notify("RELOADING=1");
      log.info("reloading");
      warned.clear();
      try {
        const nextToken = await readStatusToken(settings, log);
        const next = await readConfig(commandLine);
        await manager.load(next.tunnels);
        token = nextToken;
        for (const name of changedSettings(settings, next))
          log.warn(`${name} has changed: restart to apply it`);
        log.info("reloaded");
      } catch (error) {
        for (const line of describeFailure(error).lines) log.warn(line);
        log.warn("reload failed; keeping the previous configuration");
      }
      await notifier.notify("READY=1");
    }
  } finally {
    stopStatus();
    removePidFile();
  }
}

/** Returns the names of the process settings that differ; they are applied only at startup. */
function changedSettings(current: ProcessSettings, next: Config): string[] {
  const names = Object.keys(PROCESS_OPTIONS) as (keyof typeof PROCESS_OPTIONS)[];
  return names
    .filter((name) => !isDeepStrictEqual(current[name], next.process[name]))
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

function claimPidFile(settings: ProcessSettings, reportReady: (() => void) | undefined): () => void {
  if (reportReady === undefined) return () => {};
  try {
    return writePidFile(settings.pidFile);
  } catch (error) {
    throw new ConfigError([`fopen(${settings.pidFile}): ${systemErrorText(error)}`, "Failed to daemonize"]);
  }
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
