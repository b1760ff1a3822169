/**
 * The configuration file (`--config`): several tunnels and the settings of the process, in TOML. Fields have the names
 * of the long options. Errors name file, line and field.
 */
import { dirname, resolve } from "node:path";
import { readFile } from "../net/async-fs.ts";
import { systemErrorText } from "../net/system-error.ts";
import { ConfigError } from "./config-error.ts";
import { type OptionSpec, type SettingSpec, type SettingValues, withDefaults } from "./option-spec.ts";
import { COMMAND_OPTIONS, PROCESS_OPTIONS, TUNNEL_OPTIONS } from "./options.ts";
import type { GivenProcessSettings } from "./process-settings.ts";
import { findBrokenTunnelRule } from "./setting-rules.ts";
import { parseToml, toValidationIssue } from "./toml.ts";
import { fileSchema, loadValibot } from "./toml-schema.ts";
import type { TunnelSettings } from "./tunnel-settings.ts";

/** The contents of a configuration file. */
export interface ConfigFile {
  readonly process: GivenProcessSettings;
  readonly tunnels: readonly TunnelSettings[];
  /** Returns the error for a setting of the process. */
  errorAt(spec: OptionSpec, message: string): ConfigError;
}

/**
 * Reads a configuration file. Paths in it are relative to its directory.
 *
 * @throws ConfigError
 */
export async function readConfigFile(path: string): Promise<ConfigFile> {
  const v = await loadValibot();
  const text = await readFile(path, "utf8").catch((error: unknown) => {
    throw new ConfigError([`cannot read ${path}: ${systemErrorText(error)}`]);
  });
  const { value, makeError } = await parseToml(path, text);
  const result = v.safeParse(fileSchema(v), value);
  if (!result.success) throw makeError(result.issues.map((issue) => toValidationIssue(issue, unknownField)));

  const { process, tunnels } = result.output;
  const directory = dirname(path);
  const names = new Map<string, string>();
  return {
    errorAt: ({ long }, message) => makeError([{ path: [long], text: message }]),
    process: resolvePaths(PROCESS_OPTIONS, process, directory),
    tunnels: [...tunnels].map(([name, { clients, ...given }]) => {
      const settings: TunnelSettings = {
        ...withDefaults(TUNNEL_OPTIONS, resolvePaths(TUNNEL_OPTIONS, given, directory)),
        name,
        clients,
      };
      const fieldError = ({ long }: OptionSpec, message: string) =>
        makeError([{ path: ["tunnels", name, long], text: message }]);
      const other = names.get(settings.source);
      if (other !== undefined)
        throw fieldError(TUNNEL_OPTIONS.source, `is already the source of tunnel ${other}`);
      names.set(settings.source, name);
      const broken = findBrokenTunnelRule(settings, ({ long }) => long);
      if (broken !== undefined) throw fieldError(broken.spec, broken.message);
      return settings;
    }),
  };
}

/** Resolves the paths among the settings against a directory. */
function resolvePaths<Table extends Readonly<Record<string, SettingSpec>>>(
  table: Table,
  given: Partial<SettingValues<Table>>,
  directory: string,
): Partial<SettingValues<Table>> {
  const values = Object.entries(given).map(([name, value]) => [
    name,
    table[name]!.type.isPath && value !== "" ? resolve(directory, value as string) : value,
  ]);
  return Object.fromEntries(values) as Partial<SettingValues<Table>>;
}

/** Returns the error for an unknown field. */
function unknownField(field: string): string {
  const has = (table: Readonly<Record<string, OptionSpec>>) =>
    Object.values(table).some(({ long }) => long === field);
  if (has(PROCESS_OPTIONS)) return "is a process setting: put it above the first table";
  if (has(TUNNEL_OPTIONS)) return "is a tunnel setting: put it under [tunnels.NAME]";
  if (has(COMMAND_OPTIONS)) return `is allowed only on the command line: --${field}`;
  return "unknown field";
}
