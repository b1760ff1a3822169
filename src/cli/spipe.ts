/** `spipe`: connects standard input and output to an encrypted connection. */

import { constants, fstatSync, readFileSync, statSync } from "node:fs";
import { firstAddress, resolveOption } from "../config/addresses.ts";
import { ConfigError, UsageError } from "../config/config-error.ts";
import { type SettingValues, withDefaults } from "../config/option-spec.ts";
import { SPIPE_OPTIONS } from "../config/options.ts";
import { readKey } from "../config/read-key.ts";
import { findExclusive } from "../config/setting-rules.ts";
import { writeError } from "../daemon/observe/line-writer.ts";
import { setProcessTitle } from "../daemon/process/process-title.ts";
import { formatAddress, parseAddress, parseBindAddress, type ResolvedAddress } from "../net/address.ts";
import { systemErrorText } from "../net/system-error.ts";
import { PacketError } from "../protocol/protocol-error.ts";
import { type ConnectAddressesOptions, connectAddresses } from "../tunnel/open-connection.ts";
import type { SpipedSocket } from "../tunnel/spiped-socket.ts";
import { findMissing, parseCommandLine, typedName } from "./command-line.ts";
import { ConnectionFailure } from "./connection-failure.ts";
import { type Attempt, explainAttempt, explainBreak, explainOpening } from "./explain.ts";
import { runProgram } from "./run-program.ts";
import { VERSION } from "./version.ts";

const PROGRAM = "spipe";

const USAGE = `usage: spipe -t <target socket> -k <key file> [-b <bind address>]
    [-f | -g] [-j] [-o <connection timeout>] [--fragile] [--verbose]
       spipe -v | -h
`;

/** Parsed arguments. Times are in ms. */
type SpipeArguments = SettingValues<typeof SPIPE_OPTIONS>;

/** Runs `spipe` with its arguments. Resolves to the exit status. */
export function spipe(argv: readonly string[]): Promise<number> {
  return runProgram(PROGRAM, USAGE, async () => {
    const args = await readArguments(argv);
    setProcessTitle(PROGRAM, argv);
    const stop = new AbortController();
    const stopped = new Promise<number>((resolve) => {
      process.once("SIGTERM", () => {
        if (args.verbose) printStep("terminated by SIGTERM");
        resolve(0);
        stop.abort();
      });
    });
    return Promise.race([stopped, connectAndTransfer(args, stop.signal)]);
  });
}

async function connectAndTransfer(args: SpipeArguments, signal: AbortSignal): Promise<number> {
  const report = args.verbose ? printStep : () => {};
  const target = args.target[0]!;
  const { addresses } = await resolveOption(target, "-t", parseAddress);
  report(`resolved ${target} to ${addresses.map(formatAddress).join(", ")}`);
  const bind = args.bind === undefined ? undefined : await bindAddress(args.bind);
  const secret = await readKey(args.key, printError);
  const socket = await open(args, { addresses, bind, secret, signal }, report);
  const reportTraffic = args.verbose ? watchTraffic(socket, report) : () => {};
  try {
    return await transfer(socket, args.fragile);
  } finally {
    reportTraffic();
    socket.destroy();
  }
}

/**
 * Reports the end of each direction. Its listeners start the streams, so the caller must pipe them in the same
 * event-loop iteration.
 *
 * @returns a function that reports the number of bytes transferred.
 */
function watchTraffic(socket: SpipedSocket, report: Report): () => void {
  const { stdin } = process;
  let sent = 0;
  let received = 0;
  stdin.on("data", (chunk: Buffer) => {
    sent += chunk.length;
  });
  socket.on("data", (chunk: Buffer) => {
    received += chunk.length;
  });
  stdin.once("end", () => report("EOF on standard input"));
  socket.once("end", () => report("EOF from the peer"));
  return () => report(`sent ${sent} bytes, received ${received} bytes`);
}

/** Prints a line to standard error. */
function printError(line: string): void {
  writeError(`${PROGRAM}: ${line}\n`);
}

/** Reports a step of the connection. */
type Report = (step: string) => void;

/** Prints a step with the time since the program was started. */
const printStep: Report = (step) => printError(`${Math.round(performance.now())} ms: ${step}`);

async function readArguments(argv: readonly string[]): Promise<SpipeArguments> {
  const program = { name: PROGRAM, usage: USAGE, version: VERSION };
  const { values } = await parseCommandLine(program, SPIPE_OPTIONS, argv);
  const missing = findMissing(SPIPE_OPTIONS, values);
  if (missing !== undefined) throw missing;
  const args = withDefaults(SPIPE_OPTIONS, values);
  const broken = findExclusive(SPIPE_OPTIONS, args, typedName);
  if (broken !== undefined) throw new UsageError(broken.message);
  return args;
}

async function bindAddress(text: string): Promise<ResolvedAddress> {
  try {
    const { addresses } = await resolveOption(text, "-b", parseBindAddress);
    return firstAddress(addresses, text, printError);
  } catch (error) {
    if (error instanceof ConfigError) throw new ConfigError([...error.lines, "Failed to get bind address"]);
    throw error;
  }
}

async function open(
  args: SpipeArguments,
  connection: Pick<ConnectAddressesOptions, "addresses" | "secret" | "signal"> & {
    bind: ResolvedAddress | undefined;
  },
  report: Report,
): Promise<SpipedSocket> {
  const attempt: Attempt = {
    address: undefined,
    failures: [],
    weak: args.weakHandshake,
    timeout: args.timeout,
  };
  const { bind, secret } = connection;
  let startTime = 0;
  const since = () => Math.round(performance.now() - startTime);
  try {
    return await connectAddresses({
      weak: args.weakHandshake,
      requireForwardSecrecy: args.requireForwardSecrecy,
      keepAlive: !args.noKeepAlive,
      ...connection,
      bind,
      timeout: args.timeout,
      onAttempt(address) {
        attempt.address = address;
        // The first use of this clock takes half a millisecond.
        if (args.verbose) startTime = performance.now();
        report(`connecting to ${formatAddress(address)}`);
      },
      onAttemptFailed(address, error) {
        if (error.syscall === "bind") printError(`Error binding socket: ${systemErrorText(error)}`);
        const failure = explainAttempt(address, bind, error);
        attempt.failures.push(failure);
        report(failure);
      },
      onStep(step) {
        if (!args.verbose) return;
        if (step === "connected" || step === "complete") {
          report(step === "connected" ? `connected in ${since()} ms` : `handshake complete in ${since()} ms`);
          startTime = performance.now();
        } else report(step);
      },
    });
  } catch (error) {
    throw explainOpening(error, attempt);
  } finally {
    secret.destroy();
  }
}

/**
 * Moves data both ways until both directions have ended.
 *
 * @returns the exit status.
 */
async function transfer(socket: SpipedSocket, fragile: boolean): Promise<number> {
  const { stdin, stdout } = process;
  // Node treats unknown file types, such as a directory, as empty input.
  if (fstatSync(0).isDirectory()) throw new ConnectionFailure(["Error reading: Is a directory"]);
  const sent = new Promise<void>((resolve) => {
    socket.once("finish", resolve);
  });
  const received = new Promise<void>((resolve) => {
    socket.once("end", () => {
      // At 'end' the last chunk has been passed to standard output; the callback runs once it is written.
      stdout.write("", () => resolve());
    });
  });
  const failed = new Promise<never>((_resolve, reject) => {
    stdin.once("error", (error) =>
      reject(new ConnectionFailure([`Error reading: ${systemErrorText(error)}`])),
    );
    stdout.once("error", (error: NodeJS.ErrnoException) => {
      if (error.code === "EPIPE") exitBySigpipe();
      reject(new ConnectionFailure([`Error writing: ${systemErrorText(error)}`]));
    });
    socket.once("error", (error) => {
      const isTruncated = error instanceof PacketError && error.code === "ERR_SPIPED_TRUNCATED";
      const failure = isTruncated
        ? new ConnectionFailure(["stream truncated inside a packet: data is missing", "Connection error"])
        : new ConnectionFailure(["Connection error", explainBreak(error)]);
      // Data received before the failure is written first.
      stdout.write("", () => reject(failure));
    });
  });
  let discarded = 0;
  if (mayBeClosed(1)) {
    socket.on("data", (chunk: Buffer) => {
      discarded += chunk.length;
    });
  }
  stdin.pipe(socket);
  socket.pipe(stdout, { end: false });
  await Promise.race([failed, fragile ? received : Promise.all([sent, received])]);
  if (discarded > 0)
    printError(`${discarded} bytes were received and discarded: standard output is closed or /dev/null`);
  return 0;
}

/**
 * Returns true if a descriptor may have been closed when the program was started. Node opens such descriptors as
 * /dev/null for reading and writing. A shell's `> /dev/null` opens it for writing only, but another parent process may
 * open it for both, which looks the same.
 */
function mayBeClosed(fd: number): boolean {
  try {
    if (fstatSync(fd).rdev !== statSync("/dev/null").rdev) return false;
    const flags = /^flags:\s*([0-7]+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, "latin1"));
    return flags !== null && (Number.parseInt(flags[1]!, 8) & constants.O_RDWR) !== 0;
  } catch {
    return false;
  }
}

/**
 * Ends the process by SIGPIPE, as Tarsnap's spipe ends. Node ignores the signal; removing a listener restores its
 * default action.
 */
function exitBySigpipe(): void {
  const ignore = () => {};
  process.on("SIGPIPE", ignore);
  process.removeListener("SIGPIPE", ignore);
  process.kill(process.pid, "SIGPIPE");
}
