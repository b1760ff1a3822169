/**
 * The configuration file (`--config`), which defines several tunnels in TOML. Fields have the names of the long
 * options. Errors name file, line and field.
 */
import { readFile } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { systemErrorText } from "../net/system-error.ts";
import { ConfigError } from "./config-error.ts";
import { loadSchemas } from "./key-settings.ts";
import type { OptionSpec } from "./option-spec.ts";
import { DEFAULT_TIMEOUT_S, PROCESS_OPTIONS } from "./options.ts";
import { isPrintable } from "./printable.ts";
import { parseToml, toValidationIssue } from "./toml.ts";
import {
  DEFAULT_MAX_CONNECTIONS,
  DEFAULT_RESOLVE_INTERVAL_S,
  parseMode,
  type TunnelSettings,
} from "./tunnel-settings.ts";

async function loadFileSchema() {
  const { v, oneOrMore, count, key } = await loadSchemas();
  const seconds = v.pipe(v.number(), v.minValue(0, "must not be negative"));
  const name = v.pipe(
    v.string(),
    v.check((text) => text !== "" && isPrintable(text), "must be a name of characters that can be shown"),
  );
  const tunnel = v.strictObject({
    encrypt: v.optional(v.boolean(), false),
    decrypt: v.optional(v.boolean(), false),
    source: v.string(),
    target: oneOrMore,
    "failover-target": v.optional(oneOrMore),
    key: v.string(),
    keys: v.optional(v.record(name, key)),
    bind: v.optional(v.string()),
    "weak-handshake": v.optional(v.boolean(), false),
    "require-forward-secrecy": v.optional(v.boolean(), false),
    "no-keepalive": v.optional(v.boolean(), false),
    "max-connections": v.optional(count, DEFAULT_MAX_CONNECTIONS),
    timeout: v.optional(seconds, DEFAULT_TIMEOUT_S),
    "idle-timeout": v.optional(seconds, 0),
    "resolve-interval": v.optional(seconds, DEFAULT_RESOLVE_INTERVAL_S),
    "no-resolve": v.optional(v.boolean(), false),
    allow: v.optional(oneOrMore),
    "accept-proxy": v.optional(oneOrMore),
    "penalty-exempt": v.optional(oneOrMore),
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
      v.record(name, tunnel),
      v.check((tunnels) => Object.keys(tunnels).length > 0, "must have at least one tunnel"),
    ),
  });
  return { v, file };
}

/**
 * Reads a configuration file. Key paths in it are relative to its directory.
 *
 * @throws ConfigError
 */
export async function readTunnels(path: string): Promise<TunnelSettings[]> {
  const { v, file } = await loadFileSchema();
  const text = await readFile(path, "utf8").catch((error: Error) => {
    throw new ConfigError([`Cannot read ${path}: ${systemErrorText(error)}`]);
  });
  const { value, makeError } = await parseToml(path, text);
  const result = v.safeParse(file, value);
  if (!result.success) throw makeError(result.issues.map((issue) => toValidationIssue(issue, unknownField)));

  const sources = new Map<string, string>();
  return Object.entries(result.output.tunnels).map(([name, fields]): TunnelSettings => {
    const fieldError = (field: string, text: string) => makeError([{ path: ["tunnels", name, field], text }]);
    const other = sources.get(fields.source);
    if (other !== undefined) throw fieldError("source", `is that of tunnel ${other} already`);
    sources.set(fields.source, name);
    if (fields.encrypt === fields.decrypt) {
      throw fieldError(
        fields.encrypt ? "decrypt" : "encrypt",
        "either encrypt or decrypt must be true, and not both",
      );
    }
    if (fields["weak-handshake"] && fields["require-forward-secrecy"]) {
      throw fieldError("require-forward-secrecy", "excludes weak-handshake");
    }
    const directory = dirname(path);
    return {
      name,
      mode: fields.encrypt ? "encrypt" : "decrypt",
      source: fields.source,
      targets: [...fields.target, ...(fields["failover-target"] ?? [])],
      key: resolve(directory, fields.key),
      keySettings: fields.keys,
      bind: fields.bind,
      weak: fields["weak-handshake"],
      requireForwardSecrecy: fields["require-forward-secrecy"],
      keepAlive: !fields["no-keepalive"],
      maxConnections: fields["max-connections"] || Number.POSITIVE_INFINITY,
      timeout: fields.timeout || DEFAULT_TIMEOUT_S,
      idleTimeout: fields["idle-timeout"] || Number.POSITIVE_INFINITY,
      resolveInterval: fields["no-resolve"]
        ? Number.POSITIVE_INFINITY
        : fields["resolve-interval"] || DEFAULT_RESOLVE_INTERVAL_S,
      allow: fields.allow,
      acceptProxy: fields["accept-proxy"],
      penaltyExempt: fields["penalty-exempt"],
      sendProxy: fields["send-proxy"],
      socketMode: fields["socket-mode"] === undefined ? undefined : parseMode(fields["socket-mode"]),
      socketOwner: fields["socket-owner"],
    };
  });
}

/** Returns the error for an unknown field. */
function unknownField(field: string): string {
  const option = Object.values<OptionSpec>(PROCESS_OPTIONS).find(({ long }) => long === field);
  if (option === undefined) return "there is no such field";
  const { long, value } = option;
  const usage = value === undefined ? `--${long}` : `--${long} ${value}`;
  return `is an option of the command line, not a field of this file: ${usage}`;
}
