/** Values of options that are numbers. */
import { ConfigError, UsageError } from "./config-error.ts";
import { NumberError, parseSeconds } from "./numbers.ts";
import type { Met } from "./option-spec.ts";

/**
 * Reads the value of `-o`, `-r` and the like; 0 stands for the default.
 *
 * @throws ConfigError if it is no number, UsageError if it is NaN.
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
 * @throws ConfigError
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
export function wrongArgument({ typed, value }: Met, why: string): ConfigError {
  return new ConfigError([`Error parsing argument: ${typed} ${value}: ${why}`]);
}
