/** The life of the daemon: start, ready, reload, drain, stop. */
import { ConfigError, UsageError } from "../config/config-error.ts";
import { readTunnels } from "../config/config-file.ts";
import { planTunnel } from "../config/make-plan.ts";
import { PROGRAM } from "../config/options.ts";
import type { ProcessSettings } from "../config/process-settings.ts";
import type { TunnelSettings } from "../config/tunnel-settings.ts";
import { systemErrorText } from "../net/system-error.ts";
import { chooseLog } from "./observe/choose-log.ts";
import { logDrain } from "./observe/drain-log.ts";
import type { Log } from "./observe/log.ts";
import type { BearerToken } from "./observe/status-access.ts";
import { Syslog } from "./observe/syslog.ts";
import { stderrLog } from "./observe/text-log.ts";
import { writePidFile } from "./process/pid-file.ts";
import { dropPrivileges, PrivilegeError } from "./process/privileges.ts";
import { takeListeningSockets, takeNotifier } from "./process/service-manager.ts";
import { onEndingSignal, onReloadSignal } from "./process/signals.ts";
import { describeFailure } from "./start-failure.ts";
import { TunnelManager } from "./tunnel-manager.ts";
import { Tunnels } from "./tunnels.ts";
import { makeBackend } from "./workers/backend.ts";

/** What a daemon is to do: serve one tunnel, or those of a configuration file. */
export type DaemonSettings = { readonly process: ProcessSettings } & (
  | { readonly tunnel: TunnelSettings }
  | { readonly config: string }
);

/**
 * Does the daemon's work, in the original's order: look the addresses up, read the keys, bind, write the pid file, drop
 * privileges, serve.
 *
 * @param reportReady present in a process that was daemonized.
 * @returns the exit status, after a drain.
 */
export async function runDaemon(
  wanted: DaemonSettings,
  version: string,
  reportReady: (() => void) | undefined,
): Promise<number> {
  const settings = wanted.process;
  const stderr = stderrLog(PROGRAM);
  const inherited = takeListeningSockets();
  const supervisor = takeNotifier((reason) => stderr.warn(reason));
  let removePidFile = () => {};
  let stopStatus = () => {};
  let destroyTunnels = () => {};
  const cleanUp = () => {
    destroyTunnels();
    removePidFile();
  };
  const firstEndingSignal = onEndingSignal(cleanUp);
  const reloadWith = onReloadSignal();
  try {
    if (settings.waitForDns) {
      removePidFile = claimPidFile(settings, reportReady);
      reportReady?.();
    }
    let draining = false;
    let token = await readStatusToken(settings, stderr);
    /** What was logged about files that are not keys, which is logged once. */
    const ignored = new Set<string>();
    /** What was logged since the last reload: with -D, plans are made again and again. */
    const warned = new Set<string>();
    const warnOnce = (message: string, known: Set<string>) => {
      if (!known.has(message)) log.warn(message);
      known.add(message);
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
          unresolved: (message) => log.warn(message),
          refuse: (message) => warnOnce(message, warned),
          ignore: (message) => warnOnce(message, ignored),
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
    await manager.load(await readSettings(wanted), inherited).catch((error) => {
      throw error instanceof UsageError ? error : describeFailure(error);
    });
    // Clients that connect from now on are drained.
    const ended = firstEndingSignal();
    try {
      if (!settings.waitForDns) removePidFile = claimPidFile(settings, reportReady);
      stopStatus = await startStatus();
      if (settings.user !== undefined) changeUser(settings.user, backend.isShared);
      backend.start();
      await tunnels.start().catch((error) => {
        throw describeFailure(error);
      });
    } catch (error) {
      cleanUp();
      throw error;
    }
    if (!settings.waitForDns) reportReady?.();
    // A reload that was asked for during the start tells of itself after it.
    void supervisor.notify("READY=1").then(() => reloadWith(reload));
    await ended;
    draining = true;
    void supervisor.notify("STOPPING=1");
    log.info("stopping");
    manager.stop();
    backend.stop();
    const stopDrainLog = logDrain(log, () => tunnels.countConnections());
    await tunnels.drain();
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

    /** Reads everything anew. What can't be used leaves the old in force. */
    async function reload(): Promise<void> {
      if (draining) return;
      await supervisor.notify("RELOADING=1");
      log.info("reloading");
      warned.clear();
      try {
        const nextToken = await readStatusToken(settings, log);
        await manager.load(await readSettings(wanted));
        token = nextToken;
        log.info("reloaded");
      } catch (error) {
        for (const line of describeFailure(error).lines) log.warn(line);
        log.warn("not reloaded: what was in force stays in force");
      }
      await supervisor.notify("READY=1");
    }
  } finally {
    stopStatus();
    removePidFile();
  }
}

/** The tunnels that are wanted now. */
async function readSettings(wanted: DaemonSettings): Promise<readonly TunnelSettings[]> {
  return "tunnel" in wanted ? [wanted.tunnel] : readTunnels(wanted.config);
}

async function readStatusToken(
  { metricsToken }: ProcessSettings,
  log: Log,
): Promise<BearerToken | undefined> {
  if (metricsToken === undefined) return undefined;
  const { readToken } = await import("./observe/start-status.ts");
  return readToken(metricsToken, (message) => log.warn(message));
}

function claimPidFile(settings: ProcessSettings, reportReady: (() => void) | undefined): () => void {
  if (reportReady === undefined) return () => {};
  try {
    return writePidFile(settings.pidFile);
  } catch (error) {
    throw new ConfigError([`fopen(${settings.pidFile}): ${systemErrorText(error)}`, "Failed to daemonize"]);
  }
}

/** @param isShared whether workers are started afterwards. */
function changeUser(spec: string, isShared: boolean): void {
  try {
    dropPrivileges(spec, isShared);
  } catch (error) {
    if (error instanceof PrivilegeError) throw new ConfigError([error.message, "Failed to drop privileges"]);
    throw new ConfigError([`Failed to drop privileges: ${systemErrorText(error)}`]);
  }
}
