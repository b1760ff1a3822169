/** What the command lines of both programs share. */
import { escapeUnprintable } from "../config/printable.ts";
import { flushStandardError } from "../daemon/line-writer.ts";
import { type Address, AddressError, EmptyAddressError, type ResolvedAddress } from "../tunnel/address.ts";
import { ResolveError, resolveAddress } from "../tunnel/resolve.ts";
import { CommandError } from "./command-error.ts";
import { type Met, type OptionSpec, UsageError } from "./grammar.ts";
import { addressHint } from "./hints.ts";
import { NumberError, parseSeconds } from "./numbers.ts";

/** Connect and handshake timeout where `-o` does not say otherwise, s. */
export const DEFAULT_TIMEOUT = 5;

/** Options that both programs have. */
export const SHARED_OPTIONS = {
  target: {
    short: "t",
    long: "target",
    value: "ADDR",
    help: "where connections go: [IP]:PORT, NAME:PORT or /PATH",
  },
  key: { short: "k", long: "key", value: "FILE", help: "file with the shared key; - for standard input" },
  bind: {
    short: "b",
    long: "bind",
    value: "ADDR",
    help: "local address for outgoing connections: IP, [IP]:PORT, NAME",
  },
  weak: { short: "f", long: "weak-handshake", help: "skip Diffie-Hellman: faster, but no forward secrecy" },
  strict: { short: "g", long: "require-forward-secrecy", help: "refuse peers that use -f" },
  noKeepAlive: { short: "j", long: "no-keepalive", help: "no TCP keep-alive" },
  timeout: {
    short: "o",
    long: "timeout",
    value: "SECONDS",
    help: "limit for the connect, and again for the handshake (5)",
  },
  version: { short: "v", long: "version", help: "print the version" },
  help: { short: "h", long: "help", help: "print this help" },
} as const satisfies Record<string, OptionSpec>;

/**
 * Reads the value of `-o`, `-r` and the like; 0 stands for the default.
 *
 * @throws CommandError if it is no number, UsageError if it is NaN.
 */
export function secondsOf(met: Met, fallback: number): number {
  const isOurs = met.spec.short === undefined;
  const seconds = numberOf(met, parseSeconds, isOurs ? "must be a number of seconds" : undefined);
  if (Number.isNaN(seconds)) throw new UsageError(`${met.typed} needs a number of seconds, not ${met.value}`);
  return seconds === 0 ? fallback : seconds;
}

/**
 * Reads a number.
 *
 * @param requirement what the value must be, for an option that the original does not have.
 * @throws CommandError
 */
export function numberOf(met: Met, parse: (text: string) => number, requirement?: string): number {
  try {
    return parse(met.value);
  } catch (error) {
    if (!(error instanceof NumberError)) throw error;
    throw wrongArgument(met, requirement ?? error.message);
  }
}

/** What to say of an option's value that can't be used. */
export function wrongArgument({ typed, value }: Met, why: string): CommandError {
  return new CommandError(`Error parsing argument: ${typed} ${value}: ${why}`);
}

/**
 * Reads and looks up an address.
 *
 * @param typed the option it belongs to.
 * @param place what it is, where it was not found on the command line: "the target of key bob".
 * @throws CommandError, UsageError
 */
export async function addressOf(
  text: string,
  typed: string,
  parse: (text: string) => Address,
  place?: string,
): Promise<{ address: Address; addresses: ResolvedAddress[] }> {
  try {
    const address = parse(text);
    const addresses = await resolveAddress(address);
    if (addresses.length === 0) throw new CommandError(`No addresses found for ${text}`);
    return { address, addresses };
  } catch (error) {
    const hint = addressHint(text, typed);
    if (error instanceof EmptyAddressError)
      throw new UsageError(`${place ?? typed} needs an address${hint ? `: ${hint}` : ""}`, error.message);
    if (!(error instanceof AddressError || error instanceof ResolveError)) throw error;
    const where = place === undefined ? "" : ` for ${place}`;
    throw new CommandError(
      error.message,
      `Error resolving socket address${where}: ${text}`,
      ...(hint ? [hint] : []),
    );
  }
}

/** The first of several addresses, for a socket that can be bound to one only. */
export function firstAddress(
  addresses: readonly ResolvedAddress[],
  text: string,
  warn: (message: string) => void,
): ResolvedAddress {
  if (addresses.length > 1) warn(`Using the first of multiple addresses found for ${text}`);
  return addresses[0]!;
}

/** Ends `main` before its time, with an exit status. */
export class Exit extends Error {
  readonly status: number;

  constructor(status: number) {
    super(`exit status ${status}`);
    this.status = status;
  }
}

/**
 * Runs a program's main function and turns its errors into lines on standard error.
 *
 * @param usage the usage text.
 * @returns the exit status.
 */
export async function runProgram(
  program: string,
  usage: string,
  main: () => Promise<number>,
): Promise<number> {
  process.stderr.on("error", () => {});
  const tell = (line: string) => process.stderr.write(`${program}: ${escapeUnprintable(line)}\n`);
  try {
    return await main();
  } catch (error) {
    if (error instanceof Exit) return error.status;
    if (error instanceof UsageError) {
      if (error.complaint !== undefined) tell(error.complaint);
      process.stderr.write(usage);
      tell(error.message);
      return 1;
    }
    if (!(error instanceof CommandError)) throw error;
    for (const line of error.lines) tell(line);
    return 1;
  } finally {
    await flushStandardError();
  }
}
