/** `spipe`: standard input and output through an encrypted connection. */

import { constants, fstatSync, readFileSync, statSync } from "node:fs";
import { addressOf, firstAddress } from "../config/addresses.ts";
import { ConfigError, UsageError } from "../config/config-error.ts";
import type { OptionSpec } from "../config/option-spec.ts";
import { secondsOf } from "../config/option-value.ts";
import { DEFAULT_TIMEOUT, SHARED_OPTIONS } from "../config/options.ts";
import { readKey } from "../config/read-key.ts";
import { showProcessAs } from "../daemon/process/process-title.ts";
import { formatAddress, parseAddress, parseBindAddress, type ResolvedAddress } from "../net/address.ts";
import { systemErrorText } from "../net/system-error.ts";
import { PacketError } from "../protocol/protocol-error.ts";
import { type ConnectAddressesOptions, connectAddresses } from "../tunnel/open-connection.ts";
import type { SpipedSocket } from "../tunnel/spiped-socket.ts";
import { ConnectionFailure } from "./connection-failure.ts";
import { type Attempt, explainAttempt, explainBreak, explainOpening } from "./explain.ts";
import { describeOptions, readOptions } from "./getopt.ts";
import { Exit, runProgram } from "./run-program.ts";
import { VERSION } from "./version.ts";

const PROGRAM = "spipe";

const OPTIONS = {
  target: SHARED_OPTIONS.target,
  key: SHARED_OPTIONS.key,
  bind: SHARED_OPTIONS.bind,
  weak: SHARED_OPTIONS.weak,
  strict: SHARED_OPTIONS.strict,
  fragile: { long: "fragile", help: "end when the peer has ended, even if standard input stays open" },
  noKeepAlive: SHARED_OPTIONS.noKeepAlive,
  timeout: SHARED_OPTIONS.timeout,
  verbose: { long: "verbose", help: "report each step of the connection on standard error" },
  version: SHARED_OPTIONS.version,
  help: SHARED_OPTIONS.help,
} as const satisfies Record<string, OptionSpec>;

const USAGE = `usage: spipe -t <target socket> -k <key file> [-b <bind address>]
    [-f | -g] [-j] [-o <connection timeout>] [--fragile] [--verbose]
       spipe -v | -h
`;

/** What the command line says. */
interface SpipeArguments {
  target: string;
  key: string;
  bind?: string;
  weak: boolean;
  requireForwardSecrecy: boolean;
  keepAlive: boolean;
  fragile: boolean;
  verbose: boolean;
  /** s */
  timeout: number;
}

/** Runs `spipe` with its arguments; returns the exit status. */
export function spipe(argv: readonly string[]): Promise<number> {
  return runProgram(PROGRAM, USAGE, async () => {
    const args = readArguments(argv);
    showProcessAs(PROGRAM, argv);
    const stop = new AbortController();
    const stopped = new Promise<number>((resolve) => {
      process.once("SIGTERM", () => {
        if (args.verbose) tellStep("ended by SIGTERM");
        resolve(0);
        stop.abort();
      });
    });
    return Promise.race([stopped, connectAndTransfer(args, stop.signal)]);
  });
}

async function connectAndTransfer(args: SpipeArguments, signal: AbortSignal): Promise<number> {
  const report = args.verbose ? tellStep : () => {};
  const { addresses } = await addressOf(args.target, "-t", parseAddress);
  report(`resolved ${args.target} to ${addresses.map(formatAddress).join(", ")}`);
  const bind = args.bind === undefined ? undefined : await bindAddress(args.bind);
  const secret = await readKey(args.key, tell);
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
 * Reports the ends of both directions. It starts the streams, so that they must be piped in the same turn of the event
 * loop.
 *
 * @returns a function that reports how much was transferred.
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
  stdin.once("end", () => report("end of input"));
  socket.once("end", () => report("end of peer"));
  return () => report(`sent ${sent} bytes, received ${received} bytes`);
}

/** A line on standard error. */
function tell(line: string): void {
  process.stderr.write(`${PROGRAM}: ${line}\n`);
}

/** Reports a step of the connection. */
type Report = (step: string) => void;

/** A line with the time since the program was started. */
const tellStep: Report = (step) => tell(`${Math.round(performance.now())} ms: ${step}`);

function readArguments(argv: readonly string[]): SpipeArguments {
  const args: Partial<SpipeArguments> & Omit<SpipeArguments, "target" | "key"> = {
    weak: false,
    requireForwardSecrecy: false,
    keepAlive: true,
    fragile: false,
    verbose: false,
    timeout: DEFAULT_TIMEOUT,
  };
  for (const met of readOptions(Object.values(OPTIONS), argv)) {
    switch (met.spec) {
      case OPTIONS.target:
        args.target = met.value;
        break;
      case OPTIONS.key:
        args.key = met.value;
        break;
      case OPTIONS.bind:
        args.bind = met.value;
        break;
      case OPTIONS.weak:
        args.weak = true;
        break;
      case OPTIONS.strict:
        args.requireForwardSecrecy = true;
        break;
      case OPTIONS.fragile:
        args.fragile = true;
        break;
      case OPTIONS.verbose:
        args.verbose = true;
        break;
      case OPTIONS.noKeepAlive:
        args.keepAlive = false;
        break;
      case OPTIONS.timeout:
        args.timeout = secondsOf(met, DEFAULT_TIMEOUT);
        break;
      case OPTIONS.version:
        process.stderr.write(`${PROGRAM} ${VERSION}\n`);
        throw new Exit(0);
      case OPTIONS.help:
        process.stdout.write(`${USAGE}\n${describeOptions(Object.values(OPTIONS))}\n`);
        throw new Exit(0);
    }
  }
  const { target, key } = args;
  if (target === undefined) throw new UsageError("-t is missing: where to connect");
  if (key === undefined) throw new UsageError("-k is missing: the file with the shared key");
  if (args.weak && args.requireForwardSecrecy) throw new UsageError("-f and -g exclude each other");
  return { ...args, target, key };
}

async function bindAddress(text: string): Promise<ResolvedAddress> {
  try {
    const { addresses } = await addressOf(text, "-b", parseBindAddress);
    return firstAddress(addresses, text, tell);
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
  const attempt: Attempt = { address: undefined, failures: [], weak: args.weak, timeout: args.timeout };
  const { bind, secret } = connection;
  let begin = 0;
  const since = () => Math.round(performance.now() - begin);
  try {
    return await connectAddresses({
      ...args,
      ...connection,
      bind,
      timeout: args.timeout * 1000,
      onAttempt(address) {
        attempt.address = address;
        begin = performance.now();
        report(`connecting to ${formatAddress(address)}`);
      },
      onAttemptFailed(address, error) {
        if (error.syscall === "bind") tell(`Error binding socket: ${systemErrorText(error)}`);
        const failure = explainAttempt(address, bind, error);
        attempt.failures.push(failure);
        report(failure);
      },
      onStep(step) {
        if (step === "connected" || step === "complete") {
          report(step === "connected" ? `connected in ${since()} ms` : `handshake complete in ${since()} ms`);
          begin = performance.now();
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
  // Node takes what it does not know for an empty input.
  if (fstatSync(0).isDirectory()) throw new ConnectionFailure(["Error reading: Is a directory"]);
  const sent = new Promise<void>((resolve) => {
    socket.once("finish", resolve);
  });
  const received = new Promise<void>((resolve) => {
    socket.once("end", () => {
      // 'end' comes when the last chunk has been written to standard output; the callback, when it has gone out.
      stdout.write("", () => resolve());
    });
  });
  const failed = new Promise<never>((_resolve, reject) => {
    stdin.once("error", (error) =>
      reject(new ConnectionFailure([`Error reading: ${systemErrorText(error)}`])),
    );
    stdout.once("error", (error: NodeJS.ErrnoException) => {
      if (error.code === "EPIPE") dieOfBrokenPipe();
      reject(new ConnectionFailure([`Error writing: ${systemErrorText(error)}`]));
    });
    socket.once("error", (error) => {
      const cut = error instanceof PacketError && error.code === "ERR_SPIPED_TRUNCATED";
      const failure = cut
        ? new ConnectionFailure(["The stream ended inside a packet: data is missing", "Connection error"])
        : new ConnectionFailure(["Connection error", explainBreak(error)]);
      // What came before goes out first.
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
    tell(`${discarded} bytes were received and discarded: standard output is closed or /dev/null`);
  return 0;
}

/**
 * True if a descriptor may have been closed when the program was started. Node opens those as /dev/null, for reading and
 * writing, so that it can't be told for sure: a shell's `> /dev/null` opens it for writing only, but a program that
 * starts this one may open it for both.
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

/** Ends the process by SIGPIPE, which Node ignores, as the original ends: a listener's removal restores the default. */
function dieOfBrokenPipe(): void {
  const ignore = () => {};
  process.on("SIGPIPE", ignore);
  process.removeListener("SIGPIPE", ignore);
  process.kill(process.pid, "SIGPIPE");
}
