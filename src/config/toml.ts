/** Reading TOML, with errors that name file, line and field. */
import { ConfigError } from "./config-error.ts";

/** One thing that is wrong in a file. */
export interface Problem {
  readonly path: readonly string[];
  readonly text: string;
}

/** A problem in the words of valibot. */
interface Issue {
  readonly path?: readonly { readonly key: unknown }[] | undefined;
  readonly message: string;
  readonly expected: string | null;
  readonly received: string;
  readonly type: string;
}

/** @param unknownField returns what to say about a field that the file can't have. */
export function asProblem(
  issue: Issue,
  unknownField: (field: string) => string = () => "there is no such field",
): Problem {
  const path = (issue.path ?? []).map(({ key }) => String(key));
  const { type, expected, received, message } = issue;
  if (expected === "never") return { path, text: unknownField(path.at(-1) ?? "") };
  if (received === "undefined") return { path, text: "is missing" };
  const standard = message.startsWith("Invalid type");
  if (!standard || type === "check") return { path, text: message };
  return { path, text: `must be a ${expected?.toLowerCase() ?? type}, not ${received}` };
}

/**
 * Parses a file; `complain` makes the error that names places in it.
 *
 * @throws ConfigError
 */
export async function parseToml(path: string, text: string) {
  const { parse, TomlError } = await import("smol-toml");
  const complain = (problems: readonly Problem[]) =>
    new ConfigError(
      problems.map(({ path: at, text: what }) => {
        const line = lineOf(text, at, parse);
        return `${path}:${line === undefined ? "" : `${line}:`} ${at.join(".")}: ${what}`;
      }),
    );
  try {
    return { value: parse(text), complain };
  } catch (error) {
    if (!(error instanceof TomlError)) throw error;
    const [reason] = error.message.replace("Invalid TOML document: ", "").split("\n");
    throw new ConfigError([`${path}:${error.line}: ${reason}`]);
  }
}

/**
 * The line on which a field is complete: the first one up to which the file, read as a file of its own, has the field,
 * or the nearest table around it.
 */
function lineOf(text: string, path: readonly string[], parse: (text: string) => unknown): number | undefined {
  const lines = text.split("\n");
  for (let depth = path.length; depth > 0; depth -= 1) {
    for (let end = 1; end <= lines.length; end += 1) {
      try {
        if (has(parse(lines.slice(0, end).join("\n")), path.slice(0, depth))) return end;
      } catch {
        // The cut is inside a value of several lines.
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
