/** Parses TOML, with errors that name file, line and field. */
import { ConfigError } from "./config-error.ts";

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
  if (message.startsWith("Invalid type")) return { path, text: `must be a table, not ${received}` };
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
  const makeError = (problems: readonly ValidationIssue[]) =>
    new ConfigError(
      problems.map(({ path: at, text: what }) => {
        const line = lineOf(text, at, parse);
        return `${path}:${line === undefined ? "" : `${line}:`} ${formatField(at)}: ${what}`;
      }),
    );
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
 * Returns the line on which a field, or else the innermost existing table around it, is complete: the last line of the
 * shortest beginning of the file that parses and contains it.
 */
function lineOf(text: string, path: readonly string[], parse: (text: string) => unknown): number | undefined {
  const lines = text.split("\n");
  for (let depth = path.length; depth > 0; depth -= 1) {
    for (let end = 1; end <= lines.length; end += 1) {
      try {
        if (has(parse(lines.slice(0, end).join("\n")), path.slice(0, depth))) return end;
      } catch {
        // The beginning ends inside a multi-line value.
      }
    }
  }
  return undefined;
}

function has(value: unknown, path: readonly string[]): boolean {
  let at = value;
  for (const key of path) {
    if (typeof at !== "object" || at === null || !(key in at)) return false;
    at = (at as Record<string, unknown>)[key];
  }
  return true;
}
