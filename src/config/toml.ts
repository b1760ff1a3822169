/** Parses TOML, with errors that name file, line and field. */
import { ConfigError } from "./config-error.ts";

/** Maximum number of problems in an error. */
const MAX_PROBLEMS = 20;

/** A problem in a file. */
export interface ValidationIssue {
  readonly path: readonly string[];
  readonly text: string;
}

/** A problem as reported by valibot. */
interface Issue {
  readonly path?: readonly { readonly key: unknown }[] | undefined;
  readonly message: string;
  readonly expected: string | null;
  readonly received: string;
}

/**
 * Converts a problem reported by valibot.
 *
 * @param unknownField - returns the error text for an unknown field.
 */
export function toValidationIssue(
  issue: Issue,
  unknownField: (field: string) => string = () => "unknown field",
): ValidationIssue {
  const path = (issue.path ?? []).map(({ key }) => String(key));
  const { expected, received, message } = issue;
  if (expected === "never") return { path, text: unknownField(path.at(-1) ?? "") };
  if (received === "undefined") return { path, text: "missing" };
  return { path, text: message };
}

/**
 * Parses a file.
 *
 * @returns the value, and a function that makes an error from problems in the file.
 * @throws ConfigError if it is not valid TOML
 */
export async function parseToml(path: string, text: string) {
  const { parse, TomlError } = await import("smol-toml");
  const makeError = (problems: readonly ValidationIssue[]) => {
    const lineOf = makeLineFinder(text, parse);
    const lines = problems.slice(0, MAX_PROBLEMS).map(({ path: at, text: what }) => {
      const line = lineOf(at);
      return `${path}:${line === undefined ? "" : `${line}:`} ${formatField(at)}: ${what}`;
    });
    const more = problems.length - lines.length;
    return new ConfigError(more > 0 ? [...lines, `${path}: and ${more} more problems`] : lines);
  };
  try {
    return { value: parse(text), makeError };
  } catch (error) {
    if (!(error instanceof TomlError)) throw error;
    const [reason = ""] = error.message.replace("Invalid TOML document: ", "").split("\n");
    throw new ConfigError([`${path}:${error.line}: ${reason}`]);
  }
}

/** Formats the path of a field; the position in a list is left out, since the message has the value. */
function formatField(path: readonly string[]): string {
  return (/^\d+$/.test(path.at(-1)!) ? path.slice(0, -1) : path).join(".");
}

/**
 * Maximum number of beginnings of a file that are parsed in vain. A list of lists can have more, with one on each line;
 * its errors name no line.
 */
const MAX_FAILED_PARSES = 200;

/** The start of a statement, or what may be one: a table, or a key. */
const STATEMENT = /^\s*(?:\[|(?:[\w-]+|"(?:[^"\\]|\\.)*"|'[^']*')\s*[.=])/;

/**
 * Returns a function that finds the line on which a field, or else the innermost existing table around it, is complete:
 * the last line of the shortest beginning of the file that parses and contains it. Each beginning is parsed at most
 * once, since this may happen in a daemon that serves connections.
 */
function makeLineFinder(
  text: string,
  parse: (text: string) => unknown,
): (path: readonly string[]) => number | undefined {
  const lines = text.split("\n");
  /** Values of beginnings by their number of lines; for those that do not parse, a shorter one that may. */
  const beginnings = new Map<number, { readonly value: unknown } | { readonly shorter: number }>();
  let failures = 0;
  const parseBeginning = (end: number) => {
    const known = beginnings.get(end);
    if (known !== undefined) return known;
    let beginning: { readonly value: unknown } | { readonly shorter: number };
    try {
      beginning = { value: parse(lines.slice(0, end).join("\n")) };
    } catch (error) {
      // The beginning ends inside a multi-line value. For a string, the error names its first line.
      const { line = end } = error as { readonly line?: number };
      failures += 1;
      let shorter = Math.min(end, line) - 1;
      while (shorter > 0 && !STATEMENT.test(lines[shorter]!)) shorter -= 1;
      beginning = { shorter };
    }
    beginnings.set(end, beginning);
    return beginning;
  };
  /** Returns the value of the longest beginning of at most `end` lines that parses. */
  const valueUpTo = (end: number): unknown => {
    let last = end;
    while (last > 0 && failures < MAX_FAILED_PARSES) {
      const beginning = parseBeginning(last);
      if ("value" in beginning) return beginning.value;
      last = beginning.shorter;
    }
    return undefined;
  };
  return (path) => {
    for (let depth = path.length; depth > 0; depth -= 1) {
      const field = path.slice(0, depth);
      if (!has(valueUpTo(lines.length), field)) continue;
      let [first, last] = [1, lines.length];
      while (first < last) {
        const middle = Math.floor((first + last) / 2);
        if (has(valueUpTo(middle), field)) last = middle;
        else first = middle + 1;
      }
      return failures < MAX_FAILED_PARSES ? first : undefined;
    }
    return undefined;
  };
}

function has(value: unknown, path: readonly string[]): boolean {
  let at = value;
  for (const key of path) {
    if (typeof at !== "object" || at === null || !Object.hasOwn(at, key)) return false;
    at = (at as Record<string, unknown>)[key];
  }
  return true;
}
