/** The types of settings: how a value is read from the command line and from TOML, with the same checks and messages. */
import type { GenericSchema } from "valibot";
import { SpipedError } from "../errors.ts";
import { AddressList } from "../net/cidr-list.ts";
import { NumberError, parseCount, parseSeconds } from "./numbers.ts";

/** The module `valibot`, which is loaded only when a file is read. */
export type Valibot = typeof import("valibot");

/** What the shell completes after an option. */
export type Completion = "file" | "toml" | "address" | "user" | "host" | readonly string[];

/** The type of a setting. */
export interface OptionType<Value = unknown> {
  /** Type in TOML, for the reference. */
  readonly toml: string;
  /** Allowed values, for messages and the reference, such as `v1 or v2`. */
  readonly range: string;
  /** True for a path, which is relative to the directory of the file that contains it. */
  readonly isPath?: boolean;
  readonly completion?: Completion;
  /** The value in the manual page, in mdoc; by default the name of the value, or the words it can be. */
  readonly argument?: string;
  /** Formats a value for the reference. */
  format?(value: Value): string;
  /**
   * Converts a value from the command line; empty for a flag.
   *
   * @throws InvalidValueError
   */
  parse(text: string): Value;
  /** Returns the schema of a value in TOML. */
  schema(v: Valibot): GenericSchema<unknown, Value>;
}

/** A value is not of the type of its setting. The message is `must be RANGE, not VALUE`. */
export class InvalidValueError extends SpipedError {
  constructor(range: string, value: string, options?: ErrorOptions) {
    super("ERR_SPIPED_CONFIG", describeMismatch(range, value || "an empty value"), options);
  }
}

function describeMismatch(range: string, value: string): string {
  return `must be ${range}, not ${value}`;
}

/** Returns the message of a schema. */
export function mismatch(range: string): (issue: { readonly input: unknown }) => string {
  return ({ input }) => describeMismatch(range, describeValue(input));
}

/** Describes a value in TOML. */
function describeValue(value: unknown): string {
  if (value === "") return "an empty value";
  if (typeof value === "string") return JSON.stringify(value);
  if (Array.isArray(value)) return value.length === 0 ? "an empty list" : "a list";
  if (value instanceof Date) return "a date";
  if (typeof value === "number" || typeof value === "bigint" || typeof value === "boolean")
    return String(value);
  return "a table";
}

/** True if given. */
export const FLAG: OptionType<boolean> = {
  toml: "boolean",
  range: "true or false",
  parse: () => true,
  schema: (v) => v.boolean(mismatch("true or false")),
};

/** Any text; what uses it checks it. */
export const TEXT: OptionType<string> = {
  toml: "string",
  range: "a string",
  parse: (text) => text,
  schema: (v) => v.string(mismatch("a string")),
};

/** An address, which is parsed and resolved with the plan. */
export const ADDRESS: OptionType<string> = { ...TEXT, range: "address", completion: "address" };

/** Addresses: one on the command line, one or more in TOML. */
export const ADDRESSES: OptionType<readonly string[]> = {
  ...listOf("a string", () => true, "one or more addresses"),
  completion: "address",
};

/** A path of any text. */
export const PATH: OptionType<string> = { ...TEXT, range: "path", isPath: true, completion: "file" };

/** A path that is not empty. */
export const FILE: OptionType<string> = {
  ...checked("a file name", (text) => text !== ""),
  isPath: true,
  completion: "file",
};

/** The name of a configuration file. */
export const CONFIG_FILE: OptionType<string> = { ...FILE, completion: "toml" };

/** A user, a group or both, which are looked up when they are needed. */
export const USER: OptionType<string> = {
  ...TEXT,
  range: "user, :group or user:group",
  completion: "user",
  argument: "Ar user | : Ns Ar group | Ar user : Ns Ar group",
};

/** A host name as in a Host header, without the port. */
export const HOST_NAMES: OptionType<readonly string[]> = {
  ...listOf("a host name without a port", (text) => /^[\w-]+(\.[\w-]+)*\.?$/.test(text)),
  completion: "host",
};

/** Addresses and ranges of addresses. */
export const CIDRS: OptionType<readonly string[]> = listOf(
  "an IP address, a range such as 192.0.2.0/24, or unix",
  (text) => {
    try {
      new AddressList([text]);
      return true;
    } catch {
      return false;
    }
  },
);

const COUNT_RANGE = "a whole number (0 or more)";

/** A number of connections; 0 means no limit, which is `Infinity`. */
export const COUNT: OptionType<number> = {
  toml: "integer",
  range: COUNT_RANGE,
  parse: (text) => parseNumber(text, COUNT_RANGE, parseCount),
  schema(v) {
    const message = mismatch(COUNT_RANGE);
    return v.pipe(
      v.number(message),
      v.check((count) => Number.isInteger(count) && count >= 0, message),
      v.transform((count) => count || Number.POSITIVE_INFINITY),
    );
  },
};

/**
 * A time, given in seconds; the value is in ms.
 *
 * @param zero - value for 0, in ms.
 */
export function seconds(zero: number): OptionType<number> {
  const range = "a number of seconds (0 or more)";
  return {
    toml: "number",
    range,
    format: (value) => (Number.isFinite(value) ? String(value / 1000) : "none"),
    parse(text) {
      const value = parseNumber(text, range, parseSeconds);
      if (Number.isNaN(value)) throw new InvalidValueError(range, text);
      return value * 1000 || zero;
    },
    schema(v) {
      const message = mismatch(range);
      return v.pipe(
        v.number(message),
        v.minValue(0, message),
        v.transform((value) => value * 1000 || zero),
      );
    },
  };
}

/** One of several words. */
export function choice<const Word extends string>(...words: readonly Word[]): OptionType<Word> {
  const range = words.join(" or ");
  const find = (text: string) => words.find((word) => word === text);
  return {
    toml: "string",
    range,
    completion: words,
    parse(text) {
      const word = find(text);
      if (word === undefined) throw new InvalidValueError(range, text);
      return word;
    },
    schema: (v) => v.picklist(words, mismatch(range)),
  };
}

/** Maximum number of worker processes; more would only use memory. */
const MAX_WORKERS = 256;

const WORKERS_RANGE = `auto or a number from 1 to ${MAX_WORKERS}`;

/** A number of worker processes; `auto` for one per core. */
export const WORKERS: OptionType<number | "auto"> = {
  toml: "integer or string",
  argument: "Ar number | Cm auto",
  range: WORKERS_RANGE,
  completion: ["auto", "2", "4", "8"],
  parse(text) {
    if (text === "auto") return text;
    const count = parseNumber(text, WORKERS_RANGE, parseCount);
    if (count > MAX_WORKERS) throw new InvalidValueError(WORKERS_RANGE, text);
    return count;
  },
  schema(v) {
    const message = mismatch(WORKERS_RANGE);
    const isCount = (count: number) => Number.isInteger(count) && count >= 1 && count <= MAX_WORKERS;
    const count = v.pipe(v.number(message), v.check(isCount, message));
    return v.union([v.literal("auto"), count], message);
  },
};

const MODE_RANGE = "permissions such as 0660";

/** Octal permissions. */
export const MODE: OptionType<number> = {
  toml: "string",
  range: MODE_RANGE,
  parse(text) {
    const mode = parseMode(text);
    if (mode === undefined) throw new InvalidValueError(MODE_RANGE, text);
    return mode;
  },
  schema(v) {
    const message = mismatch(`${MODE_RANGE}, as a string`);
    return v.pipe(
      v.string(message),
      v.check((text) => parseMode(text) !== undefined, message),
      v.transform((text) => parseMode(text)!),
    );
  },
};

/** A date, which only TOML has. */
export const DATE: OptionType<Date> = {
  toml: "date",
  range: "a date such as 2027-01-31",
  parse: (text) => new Date(text),
  schema: (v) => v.date(mismatch("a date such as 2027-01-31")),
};

function parseMode(text: string): number | undefined {
  return /^0?[0-7]{3}$/.test(text) ? Number.parseInt(text, 8) : undefined;
}

function parseNumber(text: string, range: string, parse: (text: string) => number): number {
  try {
    return parse(text);
  } catch (error) {
    if (!(error instanceof NumberError)) throw error;
    throw new InvalidValueError(range, text, { cause: error });
  }
}

/** Returns the type of texts that pass a check. */
function checked(range: string, isValid: (text: string) => boolean): OptionType<string> {
  return {
    toml: "string",
    range,
    parse(text) {
      if (!isValid(text)) throw new InvalidValueError(range, text);
      return text;
    },
    schema: (v) => v.pipe(v.string(mismatch(range)), v.check(isValid, mismatch(range))),
  };
}

/**
 * Returns the type of a list whose elements pass a check. The command line gives one element at a time.
 *
 * @param listRange - allowed values of the whole list; by default "one or more of" the elements.
 */
function listOf(
  range: string,
  isValid: (text: string) => boolean,
  listRange = `${range}; one or more`,
): OptionType<readonly string[]> {
  const element = checked(range, isValid);
  return {
    toml: "string or list of strings",
    range: listRange,
    parse: (text) => [element.parse(text)],
    schema(v) {
      const listOfStrings = "a string or a list of strings";
      const message = ({ input }: { readonly input: unknown }) =>
        Array.isArray(input)
          ? describeMismatch(listOfStrings, "a list of other values")
          : mismatch(listOfStrings)({ input });
      return v.pipe(
        v.union([v.string(), v.array(v.string())], message),
        v.transform((value) => (typeof value === "string" ? [value] : value)),
        v.minLength(1, mismatch(listOfStrings)),
        v.checkItems(isValid, mismatch(range)),
      );
    },
  };
}
