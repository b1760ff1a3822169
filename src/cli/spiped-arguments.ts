/** Parses the command line of `spiped`. */
import type { CommandLineConfig } from "../config/config.ts";
import { UsageError } from "../config/config-error.ts";
import { type SettingSpec, type SettingValues, withDefaults } from "../config/option-spec.ts";
import {
  COMMAND_OPTIONS,
  PROCESS_OPTIONS,
  PROGRAM,
  SPIPED_OPTIONS,
  TUNNEL_OPTIONS,
} from "../config/options.ts";
import { findBrokenProcessRule, findBrokenTunnelRule } from "../config/setting-rules.ts";
import { findMissing, parseCommandLine, typedName } from "./command-line.ts";
import { VERSION } from "./version.ts";

/** The usage text. */
export const USAGE = `usage: spiped {-e | -d} -s <source socket> -t <target socket> -k <key file>
    [-b <bind address>] [-DFj] [-f | -g] [-n <max # connections>]
    [-o <connection timeout>] [-p <pidfile>] [-r <rtime> | -R] [--syslog]
    [-u {<username> | <:groupname> | <username:groupname>}]
       spiped --config <file> [--check-config]
       spiped --generate-key <file> | --check-key <file>
       spiped keys {list | show | add | rotate | revoke} <directory> [<name>]
       spiped -v | -h
`;

/** The action on the command line, with its settings. */
export type SpipedArguments =
  | { readonly action: "serve"; readonly config: CommandLineConfig }
  | { readonly action: "check-config"; readonly config: CommandLineConfig; readonly file: string }
  | { readonly action: "generate-key"; readonly file: string }
  | { readonly action: "check-key"; readonly file: string };

/**
 * Parses the command line.
 *
 * @throws UsageError, ConfigError; Exit after `-v` or `-h`.
 */
export async function readArguments(argv: readonly string[]): Promise<SpipedArguments> {
  const { values, hasOtherThan } = await parseCommandLine(
    { name: PROGRAM, usage: USAGE, version: VERSION },
    SPIPED_OPTIONS,
    argv,
    [TUNNEL_OPTIONS.encrypt, TUNNEL_OPTIONS.decrypt],
  );
  const { generateKey, checkKey, config: file, checkConfig = false, foreground = false } = values;
  if (generateKey !== undefined) {
    if (hasOtherThan(COMMAND_OPTIONS.generateKey))
      throw new UsageError("--generate-key cannot be combined with other options");
    return { action: "generate-key", file: generateKey };
  }
  if (checkKey !== undefined) {
    if (hasOtherThan(COMMAND_OPTIONS.checkKey))
      throw new UsageError("--check-key cannot be combined with other options");
    return { action: "check-key", file: checkKey };
  }

  const process = pick(PROCESS_OPTIONS, values);
  const tunnelValues = pick(TUNNEL_OPTIONS, values);
  if (file !== undefined) {
    const [stray] = Object.keys(tunnelValues) as (keyof typeof TUNNEL_OPTIONS)[];
    if (stray !== undefined)
      throw new UsageError(
        `--${TUNNEL_OPTIONS[stray].long} cannot be used with --config; set it in the file`,
      );
    const config = { foreground, process, file };
    return checkConfig ? { action: "check-config", config, file } : { action: "serve", config };
  }
  if (checkConfig) throw new UsageError("--check-config requires --config");
  const brokenProcessRule = findBrokenProcessRule(process, ({ long }) => `--${long}`);
  if (brokenProcessRule !== undefined) throw new UsageError(brokenProcessRule.message);
  const tunnel = withDefaults(TUNNEL_OPTIONS, tunnelValues);
  const brokenRule = findBrokenTunnelRule(tunnel, typedName);
  const isSideMissing = !tunnel.encrypt && !tunnel.decrypt;
  const mistake = isSideMissing ? undefined : findMissing(TUNNEL_OPTIONS, tunnelValues);
  if (mistake !== undefined) throw mistake;
  if (brokenRule !== undefined) throw new UsageError(brokenRule.message);
  return { action: "serve", config: { foreground, process, tunnel } };
}

/** Returns the given values of a table's settings. */
function pick<Table extends Readonly<Record<string, SettingSpec>>>(
  table: Table,
  values: Partial<SettingValues<Table>>,
): Partial<SettingValues<Table>> {
  const names = Object.keys(table) as (keyof Table)[];
  const given = names.filter((name) => values[name] !== undefined).map((name) => [name, values[name]]);
  return Object.fromEntries(given) as Partial<SettingValues<Table>>;
}
