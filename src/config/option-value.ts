/** Parses numeric option values. */
import { ConfigError, UsageError } from "./config-error.ts";
import { NumberError, parseSeconds } from "./numbers.ts";
import type { ParsedOption } from "./option-spec.ts";

/**
 * Parses the value of an option in seconds, such as `-o` or `-r`.
 *
 * @param fallback returned for 0.
 * @throws ConfigError if the value is not a number, UsageError if it is NaN.
 */
export function parseSecondsOption(option: ParsedOption, fallback: number): number {
  const isAddition = option.spec.short === undefined;
  const seconds = parseNumberOption(
    option,
    parseSeconds,
    isAddition ? "must be a number of seconds" : undefined,
  );
  if (Number.isNaN(seconds))
    throw new UsageError(`${option.rawName} needs a number of seconds, not ${option.value}`);
  return seconds === 0 ? fallback : seconds;
}

/**
 * Parses a numeric option value.
 *
 * @param requirement error text for an option that Tarsnap's programs do not have.
 * @throws ConfigError
 */
export function parseNumberOption(
  option: ParsedOption,
  parse: (text: string) => number,
  requirement?: string,
): number {
  try {
    return parse(option.value);
  } catch (error) {
    if (!(error instanceof NumberError)) throw error;
    throw wrongArgument(option, requirement ?? error.message);
  }
}

/** Returns the error for an invalid option value. */
export function wrongArgument({ rawName, value }: ParsedOption, reason: string): ConfigError {
  return new ConfigError([`Error parsing argument: ${rawName} ${value}: ${reason}`]);
}
