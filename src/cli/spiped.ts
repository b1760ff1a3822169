/** `spiped`: the daemon, from its command line to its end. */
import cluster from "node:cluster";
import { availableParallelism } from "node:os";
import type { Registry } from "prom-client";
import { type Backend, LocalBackend } from "../daemon/backend.ts";
import { connectionLog } from "../daemon/connection-log.ts";
import { daemonize, takeReadyReport } from "../daemon/daemonize.ts";
import { BindError, Fleet } from "../daemon/fleet.ts";
import { keepHeapSmall } from "../daemon/heap.ts";
import { Limits } from "../daemon/limits.ts";
import { bothLogs, type Log, warningsOnly } from "../daemon/log.ts";
import { takeListeningSockets, takeNotifier } from "../daemon/notify.ts";
import { allObservers } from "../daemon/observer.ts";
import { writePidFile } from "../daemon/pid-file.ts";
import type { TunnelPlan } from "../daemon/plan.ts";
import { dropPrivileges, PrivilegeError } from "../daemon/privileges.ts";
import { onEndingSignal, onReloadSignal } from "../daemon/signals.ts";
import { stderrLog } from "../daemon/stderr-log.ts";
import { Syslog } from "../daemon/syslog.ts";
import { parseAddress } from "../tunnel/address.ts";
import { systemErrorText } from "../tunnel/system-error.ts";
import { CommandError } from "./command-error.ts";
import { addressOf, firstAddress, runProgram } from "./common-options.ts";
import { readTunnels } from "./config-file.ts";
import { checkKey, generateKey } from "./key-commands.ts";
import { planTunnel } from "./plan-tunnel.ts";
import { showProcessAs } from "./process-name.ts";
import type { TunnelSettings } from "./settings.ts";
import {
  PROGRAM,
  type ProcessSettings,
  readArguments,
  type SpipedArguments,
  USAGE,
} from "./spiped-arguments.ts";
import { VERSION } from "./version.ts";

/** Runs `spiped` with its arguments; returns the exit status. */
export function spiped(argv: readonly string[]): Promise<number> {
  return runProgram(PROGRAM, USAGE, async () => {
    if (cluster.isWorker) {
      keepHeapSmall();
      showProcessAs(PROGRAM, argv);
      return (await import("../daemon/workers.ts")).runWorker();
    }
    const args = readArguments(argv);
    if (args.action === "generate-key") return generateKey(args.file);
    if (args.action === "check-key") return checkKey(args.file);
    if (args.action === "check-config") return checkConfig(args.config);
    const reportReady = takeReadyReport();
    if (args.process.foreground || reportReady !== undefined) {
      keepHeapSmall();
      showProcessAs(PROGRAM, argv);
      return serve(args, reportReady);
    }
    return (await daemonize(argv)) ? 0 : 1;
  });
}

type ServeArguments = Extract<SpipedArguments, { action: "serve" }>;

async function checkConfig(path: string): Promise<number> {
  const log = stderrLog(PROGRAM);
  const warn = (message: string) => log.warn(message);
  for (const settings of await readTunnels(path)) await planTunnel(settings, { waitForDns: false, warn });
  process.stdout.write(`${path}: all is well\n`);
  return 0;
}

/**
 * Does the daemon's work, in the original's order: look the addresses up, read the keys, bind, write the pid file, drop
 * privileges, serve.
 *
 * @param reportReady present in a process that was daemonized.
 * @returns the exit status, after a drain.
 */
async function serve(args: ServeArguments, reportReady: (() => void) | undefined): Promise<number> {
  const settings = args.process;
  const stderr = stderrLog(PROGRAM);
  const inherited = takeListeningSockets();
  const supervisor = takeNotifier((reason) => stderr.warn(reason));
  let removePidFile = () => {};
  let stopStatus = () => {};
  let destroyFleet = () => {};
  const cleanUp = () => {
    destroyFleet();
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
    let plans = await makePlans(args, stderr);
    const syslog = settings.syslog ? new Syslog(PROGRAM, (reason) => stderr.warn(reason)) : undefined;
    const log = await chooseLog(settings, stderr, syslog);
    const { backend, registry, startWorkers } = await makeBackend(settings, log);
    const fleet = new Fleet(backend, log);
    destroyFleet = () => fleet.destroy();
    // Clients that connect from now on are drained.
    const ended = firstEndingSignal();
    await fleet.open(plans, inherited).catch((error) => {
      throw new CommandError(describeFailure(error));
    });
    try {
      if (!settings.waitForDns) removePidFile = claimPidFile(settings, reportReady);
      stopStatus = await startStatus();
      if (settings.user !== undefined) changeUser(settings.user);
    } catch (error) {
      cleanUp();
      throw error;
    }
    startWorkers();
    fleet.start();
    if (!settings.waitForDns) reportReady?.();
    // A reload that was asked for during the start tells of itself after it.
    void supervisor.notify("READY=1").then(() => reloadWith(reload));
    await ended;
    draining = true;
    void supervisor.notify("STOPPING=1");
    await fleet.drain();
    await syslog?.close();
    return 0;

    async function startStatus(): Promise<() => void> {
      if (settings.metrics === undefined || registry === undefined) return () => {};
      const { addresses } = await addressOf(settings.metrics, "--metrics", parseAddress);
      const { serveStatus } = await import("../daemon/status-server.ts");
      const state = async () =>
        draining ? "draining" : (await backend.reachable()) ? "ready" : "target unreachable";
      return serveStatus(
        firstAddress(addresses, settings.metrics, (line) => log.warn(line)),
        {
          version: VERSION,
          registry,
          state,
        },
      ).catch((error: Error) => {
        throw new CommandError(`Cannot serve metrics on ${settings.metrics}: ${systemErrorText(error)}`);
      });
    }

    /** Reads everything anew. What can't be used leaves the old in force. */
    async function reload(): Promise<void> {
      if (draining) return;
      await supervisor.notify("RELOADING=1");
      try {
        const next = await makePlans(args, log, plans);
        if (draining) return;
        await fleet.change(next);
        plans = next;
        log.info("reloaded");
      } catch (error) {
        for (const line of error instanceof CommandError ? error.lines : [describeFailure(error)])
          log.warn(line);
        log.warn("not reloaded: what was in force stays in force");
      }
      await supervisor.notify("READY=1");
    }
  } finally {
    stopStatus();
    removePidFile();
  }
}

/** What serves the connections: this process, or workers. */
async function makeBackend(
  settings: ProcessSettings,
  log: Log,
): Promise<{ backend: Backend; registry?: () => Promise<Registry>; startWorkers: () => void }> {
  const tellConnections = settings.logLevel === "info";
  const measure = settings.metrics !== undefined;
  const metrics = measure ? await import("../daemon/metrics.ts") : undefined;
  const count = settings.workers === "auto" ? availableParallelism() : settings.workers;
  if (count > 1) {
    const { WorkerBackend } = await import("../daemon/workers.ts");
    const backend = new WorkerBackend({ count, log, tellConnections, measure });
    const startWorkers = () => backend.start();
    if (metrics === undefined) return { backend, startWorkers };
    return { backend, startWorkers, registry: async () => metrics.joinMetrics(await backend.metrics()) };
  }
  const own = metrics?.makeMetrics(metrics.makeRegistry());
  const limits = new Limits(log);
  const backend = new LocalBackend({
    log,
    observer: allObservers(...(tellConnections ? [connectionLog(log)] : []), ...(own ? [own.observer] : [])),
    slots: (plan, key, limit) => limits.get(plan.name, key?.name, limit),
  });
  const startWorkers = () => {};
  if (own === undefined) return { backend, startWorkers };
  return { backend, startWorkers, registry: async () => own.registry };
}

/** @param previous the plans in force, at a reload. */
async function makePlans(
  args: ServeArguments,
  log: Log,
  previous?: readonly TunnelPlan[],
): Promise<TunnelPlan[]> {
  const tunnels: readonly TunnelSettings[] =
    "tunnel" in args ? [args.tunnel] : await readTunnels(args.config);
  const waitForDns = args.process.waitForDns && previous === undefined;
  const plans: TunnelPlan[] = [];
  for (const settings of tunnels) {
    plans.push(
      await planTunnel(settings, {
        waitForDns,
        warn: (message) => log.warn(message),
        previous: previous?.find(({ name }) => name === settings.name),
      }),
    );
  }
  return plans;
}

/** One line for an address that could not be opened, with the tunnel's name where there are several. */
function describeFailure(error: unknown): string {
  if (!(error instanceof BindError)) return systemErrorText(error);
  const { name, source } = error.plan;
  const place = source.kind === "unix" ? source.path : `[${source.host}]:${source.port}`;
  return name === undefined
    ? `Error binding socket: ${error.message}`
    : `${name}: Error binding socket ${place}: ${error.message}`;
}

function claimPidFile(settings: ProcessSettings, reportReady: (() => void) | undefined): () => void {
  if (reportReady === undefined) return () => {};
  try {
    return writePidFile(settings.pidFile);
  } catch (error) {
    throw new CommandError(`fopen(${settings.pidFile}): ${systemErrorText(error)}`, "Failed to daemonize");
  }
}

function changeUser(spec: string): void {
  try {
    dropPrivileges(spec);
  } catch (error) {
    if (error instanceof PrivilegeError) throw new CommandError(error.message, "Failed to drop privileges");
    throw new CommandError(`Failed to drop privileges: ${systemErrorText(error)}`);
  }
}

/** After daemonizing `--syslog` means syslog alone, as in the original; in the foreground, syslog beside standard error. */
async function chooseLog(settings: ProcessSettings, stderr: Log, syslog: Syslog | undefined): Promise<Log> {
  const { foreground, logFormat, logLevel } = settings;
  const plain =
    logFormat === "json" ? await (await import("../daemon/json-log.ts")).jsonLog(PROGRAM) : stderr;
  const log = syslog === undefined ? plain : foreground ? bothLogs(plain, syslog) : syslog;
  return logLevel === "info" ? log : warningsOnly(log);
}
