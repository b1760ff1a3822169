/**
 * Files in TOML: several tunnels in one (`--config`), or what holds for one key (the `.toml` beside it). Fields have the
 * names of the long options. What is wrong is told with file, line and field.
 */
import { readFile } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { systemErrorText } from "../tunnel/system-error.ts";
import { CommandError } from "./command-error.ts";
import { DEFAULT_TIMEOUT } from "./common-options.ts";
import {
  DEFAULT_LIMIT,
  DEFAULT_RESOLVE_INTERVAL,
  type KeySettings,
  parseMode,
  type TunnelSettings,
} from "./settings.ts";
import { PROCESS_OPTIONS } from "./spiped-arguments.ts";

/** Loaded when a file is read: most daemons have none. */
async function load() {
  const v = await import("valibot");
  const oneOrMore = v.pipe(
    v.union(
      [v.string(), v.pipe(v.array(v.string()), v.minLength(1, "must not be empty"))],
      "must be a string or a list of strings",
    ),
    v.transform((value) => (typeof value === "string" ? [value] : value)),
  );
  const seconds = v.pipe(v.number(), v.minValue(0, "must not be negative"));
  const count = v.pipe(
    v.number(),
    v.integer("must be a whole number"),
    v.minValue(0, "must not be negative"),
  );
  const key = v.strictObject({
    target: v.optional(oneOrMore),
    "max-connections": v.optional(count),
    expires: v.optional(v.date("must be a date, such as 2027-01-31")),
  });
  const tunnel = v.strictObject({
    encrypt: v.optional(v.boolean(), false),
    decrypt: v.optional(v.boolean(), false),
    source: v.string(),
    target: oneOrMore,
    "failover-target": v.optional(oneOrMore),
    key: v.string(),
    keys: v.optional(v.record(v.string(), key)),
    bind: v.optional(v.string()),
    "weak-handshake": v.optional(v.boolean(), false),
    "require-forward-secrecy": v.optional(v.boolean(), false),
    "no-keepalive": v.optional(v.boolean(), false),
    "max-connections": v.optional(count, DEFAULT_LIMIT),
    timeout: v.optional(seconds, DEFAULT_TIMEOUT),
    "idle-timeout": v.optional(seconds, 0),
    "resolve-interval": v.optional(seconds, DEFAULT_RESOLVE_INTERVAL),
    "no-resolve": v.optional(v.boolean(), false),
    allow: v.optional(oneOrMore),
    "accept-proxy": v.optional(oneOrMore),
    "send-proxy": v.optional(v.picklist(["v1", "v2"], 'must be "v1" or "v2"')),
    "socket-mode": v.optional(
      v.pipe(
        v.string('must be a string such as "0660"'),
        v.check((text) => parseMode(text) !== undefined, 'must be a string such as "0660"'),
      ),
    ),
    "socket-owner": v.optional(v.string()),
  });
  const file = v.strictObject({
    tunnels: v.pipe(
      v.record(v.string(), tunnel),
      v.check((tunnels) => Object.keys(tunnels).length > 0, "must have at least one tunnel"),
    ),
  });
  return { v, file, key };
}

/**
 * Reads a file of tunnels. Relative paths in it start at its own directory.
 *
 * @throws CommandError
 */
export async function readTunnels(path: string): Promise<TunnelSettings[]> {
  const { v, file } = await load();
  const text = await readFile(path, "utf8").catch((error: Error) => {
    throw new CommandError(`Cannot read ${path}: ${systemErrorText(error)}`);
  });
  const { value, complain } = await parseToml(path, text);
  const result = v.safeParse(file, value);
  if (!result.success) throw complain(result.issues.map(asProblem));

  const sources = new Map<string, string>();
  return Object.entries(result.output.tunnels).map(([name, fields]): TunnelSettings => {
    const wrong = (field: string, text: string) => complain([{ path: ["tunnels", name, field], text }]);
    const other = sources.get(fields.source);
    if (other !== undefined) throw wrong("source", `is that of tunnel ${other} already`);
    sources.set(fields.source, name);
    if (fields.encrypt === fields.decrypt) {
      throw wrong(
        fields.encrypt ? "decrypt" : "encrypt",
        "either encrypt or decrypt must be true, and not both",
      );
    }
    if (fields["weak-handshake"] && fields["require-forward-secrecy"]) {
      throw wrong("require-forward-secrecy", "excludes weak-handshake");
    }
    const directory = dirname(path);
    return {
      name,
      mode: fields.encrypt ? "encrypt" : "decrypt",
      source: fields.source,
      targets: [...fields.target, ...(fields["failover-target"] ?? [])],
      key: resolve(directory, fields.key),
      keySettings:
        fields.keys &&
        Object.fromEntries(
          Object.entries(fields.keys).map(([key, settings]) => [key, asKeySettings(settings)]),
        ),
      bind: fields.bind,
      weak: fields["weak-handshake"],
      requireForwardSecrecy: fields["require-forward-secrecy"],
      keepAlive: !fields["no-keepalive"],
      maxConnections: fields["max-connections"] || Number.POSITIVE_INFINITY,
      timeout: fields.timeout || DEFAULT_TIMEOUT,
      idleTimeout: fields["idle-timeout"] || Number.POSITIVE_INFINITY,
      resolveInterval: fields["no-resolve"]
        ? Number.POSITIVE_INFINITY
        : fields["resolve-interval"] || DEFAULT_RESOLVE_INTERVAL,
      allow: fields.allow,
      acceptProxy: fields["accept-proxy"],
      sendProxy: fields["send-proxy"],
      socketMode: fields["socket-mode"] === undefined ? undefined : parseMode(fields["socket-mode"]),
      socketOwner: fields["socket-owner"],
    };
  });
}

/**
 * Reads what holds for one key.
 *
 * @returns undefined if there is no such file.
 * @throws CommandError
 */
export async function readKeySettings(path: string): Promise<KeySettings | undefined> {
  const { v, key } = await load();
  const text = await readFile(path, "utf8").catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return undefined;
    throw new CommandError(`Cannot read ${path}: ${systemErrorText(error)}`);
  });
  if (text === undefined) return undefined;
  const { value, complain } = await parseToml(path, text);
  const result = v.safeParse(key, value);
  if (!result.success) throw complain(result.issues.map(asProblem));
  return asKeySettings(result.output);
}

function asKeySettings(fields: {
  target?: readonly string[] | undefined;
  "max-connections"?: number | undefined;
  expires?: Date | undefined;
}): KeySettings {
  return {
    targets: fields.target,
    maxConnections: fields["max-connections"] === 0 ? undefined : fields["max-connections"],
    expires: fields.expires,
  };
}

/** One thing that is wrong in a file. */
interface Problem {
  readonly path: readonly string[];
  readonly text: string;
}

function asProblem(issue: {
  readonly path?: readonly { readonly key: unknown }[] | undefined;
  readonly message: string;
  readonly expected: string | null;
  readonly received: string;
  readonly type: string;
}): Problem {
  const path = (issue.path ?? []).map(({ key }) => String(key));
  const { type, expected, received, message } = issue;
  if (expected === "never") return { path, text: unknownField(path.at(-1) ?? "") };
  if (received === "undefined") return { path, text: "is missing" };
  const standard = message.startsWith("Invalid type");
  if (!standard || type === "check") return { path, text: message };
  return { path, text: `must be a ${expected?.toLowerCase() ?? type}, not ${received}` };
}

/** The problem of a field that the file cannot have. */
function unknownField(field: string): string {
  const option = PROCESS_OPTIONS.find(({ long }) => long === field);
  if (option === undefined) return "there is no such field";
  const { long, value } = option;
  const usage = value === undefined ? `--${long}` : `--${long} ${value}`;
  return `is an option of the command line, not a field of this file: ${usage}`;
}

/** Parses a file; `complain` makes the error that names places in it. */
async function parseToml(path: string, text: string) {
  const { parse, TomlError } = await import("smol-toml");
  const complain = (problems: readonly Problem[]) =>
    new CommandError(
      ...problems.map(({ path: at, text: what }) => {
        const line = lineOf(text, at, parse);
        return `${path}:${line === undefined ? "" : `${line}:`} ${at.join(".")}: ${what}`;
      }),
    );
  try {
    return { value: parse(text), complain };
  } catch (error) {
    if (!(error instanceof TomlError)) throw error;
    const [reason] = error.message.replace("Invalid TOML document: ", "").split("\n");
    throw new CommandError(`${path}:${error.line}: ${reason}`);
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
