/** `spiped`: the daemon, from its command line to its end. */
import cluster from "node:cluster";
import { availableParallelism } from "node:os";
import type { Registry } from "prom-client";
import { connectionLog } from "../daemon/connection-log.ts";
import { daemonize, takeReadyReport } from "../daemon/daemonize.ts";
import { logDrain } from "../daemon/drain-log.ts";
import { FailureLog } from "../daemon/failure-log.ts";
import { keepHeapSmall } from "../daemon/heap.ts";
import { Limits, makeAdmission } from "../daemon/limits.ts";
import { bothLogs, type Log, warningsOnly } from "../daemon/log.ts";
import { takeListeningSockets, takeNotifier } from "../daemon/notify.ts";
import { allObservers } from "../daemon/observer.ts";
import { writePidFile } from "../daemon/pid-file.ts";
import { dropPrivileges, PrivilegeError } from "../daemon/privileges.ts";
import { onEndingSignal, onReloadSignal } from "../daemon/signals.ts";
import type { BearerToken } from "../daemon/status-access.ts";
import type { WorkerStatus } from "../daemon/status-server.ts";
import { stderrLog } from "../daemon/stderr-log.ts";
import { Syslog } from "../daemon/syslog.ts";
import { localTunnels, type TunnelFactory } from "../daemon/tunnel.ts";
import { TunnelManager } from "../daemon/tunnel-manager.ts";
import { BindError, checkSources, Tunnels } from "../daemon/tunnels.ts";
import { isWorker, runWorker } from "../daemon/workers/worker.ts";
import { formatAddress } from "../tunnel/address.ts";
import { systemErrorText } from "../tunnel/system-error.ts";
import { CommandError } from "./command-error.ts";
import { runProgram } from "./common-options.ts";
import { readTunnels } from "./config-file.ts";
import { UsageError } from "./grammar.ts";
import { bindHint } from "./hints.ts";
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
export async function spiped(argv: readonly string[]): Promise<number> {
  // Upstream's programs take no operand, so no command line of theirs changes its meaning.
  if (argv[0] === "keys") return (await import("./keys.ts")).keys(argv.slice(1));
  return runProgram(PROGRAM, USAGE, async () => {
    if (isWorker()) {
      keepHeapSmall();
      showProcessAs(PROGRAM, argv);
      return runWorker();
    }
    const args = readArguments(argv);
    if (args.action === "generate-key") return generateKey(args.file);
    if (args.action === "check-key") return checkKey(args.file);
    if (args.action === "check-config") return checkConfig(args.config);
    // Node would have such a process ask its parent for each socket.
    if (cluster.isWorker)
      throw new CommandError("NODE_UNIQUE_ID is set, as for a worker of node:cluster: unset it");
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
  let refused = false;
  const refuse = (message: string) => {
    refused = true;
    warn(message);
  };
  const options = { waitForDns: false, warn, unresolved: warn, refuse, ignore: warn };
  const plans = [];
  for (const settings of await readTunnels(path)) plans.push(await planTunnel(settings, options));
  try {
    checkSources(plans.filter((plan) => plan !== undefined));
  } catch (error) {
    throw describeFailure(error);
  }
  if (refused) return 1;
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
    log.info(`starting, version ${VERSION}`);
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
    await manager.load(await readSettings(args), inherited).catch((error) => {
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
      const status = await import("./status.ts");
      const source = {
        version: VERSION,
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
        await manager.load(await readSettings(args));
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

/** What serves the connections: this process, or workers. */
interface Backend {
  readonly factory: TunnelFactory;
  /** Whether other processes accept from the sockets that this one binds. */
  readonly isShared: boolean;
  readonly registry?: () => Promise<Registry>;
  workers(): readonly WorkerStatus[];
  /** To be called when privileges are dropped. */
  start(): void;
  /** To be called before the tunnels are drained. */
  stop(): void;
  /** Resolves when no other process is left, after the tunnels were drained. */
  exited(): Promise<void>;
  destroy(): void;
}

async function makeBackend(settings: ProcessSettings, log: Log): Promise<Backend> {
  const logConnections = settings.logLevel === "info";
  const collectMetrics = settings.metrics !== undefined;
  const metrics = collectMetrics ? await import("../daemon/metrics.ts") : undefined;
  const count = settings.workers === "auto" ? availableParallelism() : settings.workers;
  if (count > 1) {
    const { WorkerPool } = await import("../daemon/workers/pool.ts");
    const pool = new WorkerPool({ count, log, logConnections, collectMetrics });
    return {
      factory: pool,
      isShared: true,
      ...(metrics && { registry: async () => metrics.joinMetrics(await pool.metrics(), pool.status()) }),
      workers: () => pool.status(),
      start: () => pool.start(),
      stop: () => pool.stop(),
      exited: () => pool.exited(),
      destroy: () => pool.destroy(),
    };
  }
  const own = metrics?.makeMetrics(metrics.makeRegistry());
  const limits = new Limits(log);
  const failures = new FailureLog(log);
  return {
    factory: localTunnels({
      log,
      observer: allObservers(
        failures,
        ...(logConnections ? [connectionLog(log)] : []),
        ...(own ? [own.observer] : []),
      ),
      admission: makeAdmission(log, 1),
      slots: (plan, key, limit) => limits.get(plan.name, key?.name, limit),
    }),
    isShared: false,
    ...(own && { registry: async () => own.registry }),
    workers: () => [],
    start: () => {},
    stop: () => {},
    exited: async () => failures.flush(),
    destroy: () => {},
  };
}

/** The tunnels that are wanted now. */
async function readSettings(args: ServeArguments): Promise<readonly TunnelSettings[]> {
  return "tunnel" in args ? [args.tunnel] : readTunnels(args.config);
}

async function readStatusToken(
  { metricsToken }: ProcessSettings,
  log: Log,
): Promise<BearerToken | undefined> {
  if (metricsToken === undefined) return undefined;
  const { readToken } = await import("./status.ts");
  return readToken(metricsToken, (message) => log.warn(message));
}

/** What the user is told of a failure to make the tunnels as they are wanted. */
function describeFailure(error: unknown): CommandError {
  if (error instanceof CommandError) return error;
  if (error instanceof UsageError) return new CommandError(error.complaint ?? error.message);
  if (!(error instanceof BindError)) return new CommandError(systemErrorText(error));
  const { name, source } = error.plan;
  const hint = bindHint(source, error.cause);
  const hints = hint === undefined ? [] : [hint];
  return name === undefined
    ? new CommandError(`Error binding socket: ${error.message}`, ...hints)
    : new CommandError(
        `${name}: Error binding socket ${formatAddress(source)}: ${error.message}`,
        ...hints.map((line) => `${name}: ${line}`),
      );
}

function claimPidFile(settings: ProcessSettings, reportReady: (() => void) | undefined): () => void {
  if (reportReady === undefined) return () => {};
  try {
    return writePidFile(settings.pidFile);
  } catch (error) {
    throw new CommandError(`fopen(${settings.pidFile}): ${systemErrorText(error)}`, "Failed to daemonize");
  }
}

/** @param isShared whether workers are started afterwards. */
function changeUser(spec: string, isShared: boolean): void {
  try {
    dropPrivileges(spec, isShared);
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
