/** `spiped`: the daemon, from its command line to its end. */
import { setTimeout as sleep } from "node:timers/promises";
import { daemonize, takeReadyReport } from "../daemon/daemonize.ts";
import { bothLogs, type Log } from "../daemon/log.ts";
import { writePidFile } from "../daemon/pid-file.ts";
import { dropPrivileges, PrivilegeError } from "../daemon/privileges.ts";
import { TunnelServer } from "../daemon/server.ts";
import { onEndingSignal } from "../daemon/signals.ts";
import { stderrLog } from "../daemon/stderr-log.ts";
import { Syslog } from "../daemon/syslog.ts";
import { type Address, parseAddress, parseBindAddress, type ResolvedAddress } from "../tunnel/address.ts";
import { systemErrorText } from "../tunnel/system-error.ts";
import { Target } from "../tunnel/target.ts";
import { CommandError } from "./command-error.ts";
import { addressOf, firstAddress, runProgram } from "./common-options.ts";
import { UsageError } from "./grammar.ts";
import { showProcessAs } from "./process-name.ts";
import { readKey } from "./read-key.ts";
import { PROGRAM, readArguments, type SpipedArguments, USAGE } from "./spiped-arguments.ts";

/** How long `-D` waits between two attempts to look a name up, ms. */
const DNS_RETRY = 1000;

/** Runs `spiped` with its arguments; returns the exit status. */
export function spiped(argv: readonly string[]): Promise<number> {
  return runProgram(PROGRAM, USAGE, async () => {
    const args = readArguments(argv);
    const reportReady = takeReadyReport();
    if (args.foreground || reportReady !== undefined) {
      showProcessAs(PROGRAM, argv);
      return serve(args, reportReady);
    }
    return (await daemonize(argv)) ? 0 : 1;
  });
}

/**
 * Does the daemon's work, in the original's order: look the addresses up, read the key, bind, write the pid file, drop
 * privileges, serve.
 *
 * @param reportReady present in a process that was daemonized.
 * @returns the exit status, after a drain.
 */
async function serve(args: SpipedArguments, reportReady: (() => void) | undefined): Promise<number> {
  const stderr = stderrLog(PROGRAM);
  let removePidFile = () => {};
  try {
    if (args.waitForDns) {
      removePidFile = claimPidFile(args, reportReady);
      reportReady?.();
    }
    const found = await findAddresses(args, stderr);
    const secret = await readKey(args.key);
    const syslog = args.syslog ? new Syslog(PROGRAM, (reason) => stderr.warn(reason)) : undefined;
    const log = chooseLog(args, stderr, syslog);
    const target = new Target(found.target.address, found.target.addresses, (error) =>
      log.warn(error.message),
    );
    const { keepAlive, maxConnections, mode, requireForwardSecrecy, weak } = args;
    const server = new TunnelServer({
      mode,
      target,
      secret,
      maxConnections,
      timeout: args.timeout * 1000,
      weak,
      requireForwardSecrecy,
      keepAlive,
      bind: found.bind,
      log,
    });
    await server.listen(found.source).catch((error: Error) => {
      throw new CommandError(`Error binding socket: ${systemErrorText(error)}`);
    });
    const cleanUp = () => {
      server.destroy();
      removePidFile();
    };
    try {
      if (!args.waitForDns) removePidFile = claimPidFile(args, reportReady);
      if (args.user !== undefined) changeUser(args.user);
    } catch (error) {
      cleanUp();
      throw error;
    }
    server.start();
    target.refreshEvery(args.resolveInterval * 1000);
    const drained = new Promise<void>((resolve) => {
      onEndingSignal(() => void server.close().then(resolve), cleanUp);
    });
    if (!args.waitForDns) reportReady?.();
    await drained;
    target.stop();
    await syslog?.close();
    return 0;
  } finally {
    removePidFile();
  }
}

function claimPidFile(args: SpipedArguments, reportReady: (() => void) | undefined): () => void {
  if (reportReady === undefined) return () => {};
  try {
    return writePidFile(args.pidFile);
  } catch (error) {
    throw new CommandError(`fopen(${args.pidFile}): ${systemErrorText(error)}`, "Failed to daemonize");
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
function chooseLog(args: SpipedArguments, stderr: Log, syslog: Syslog | undefined): Log {
  if (syslog === undefined) return stderr;
  return args.foreground ? bothLogs(stderr, syslog) : syslog;
}

interface FoundAddresses {
  readonly source: ResolvedAddress;
  readonly target: { readonly address: Address; readonly addresses: ResolvedAddress[] };
  readonly bind: ResolvedAddress | undefined;
}

/** Looks all addresses up; with `-D`, as often as it takes. */
async function findAddresses(args: SpipedArguments, log: Log): Promise<FoundAddresses> {
  const patiently = async (text: string, typed: string, parse: (text: string) => Address) => {
    for (;;) {
      try {
        return await addressOf(text, typed, parse);
      } catch (error) {
        if (!args.waitForDns || !(error instanceof CommandError || error instanceof UsageError)) throw error;
        const lines = error instanceof CommandError ? error.lines : [error.complaint ?? error.message];
        for (const line of lines) log.warn(line);
        await sleep(DNS_RETRY);
      }
    }
  };
  const warn = (message: string) => log.warn(message);
  const source = await patiently(args.source, "-s", parseAddress);
  const target = await patiently(args.target, "-t", parseAddress);
  const bind = args.bind === undefined ? undefined : await patiently(args.bind, "-b", parseBindAddress);
  return {
    source: firstAddress(source.addresses, args.source, warn),
    target,
    bind:
      bind === undefined || args.bind === undefined
        ? undefined
        : firstAddress(bind.addresses, args.bind, warn),
  };
}
