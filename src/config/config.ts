/** The daemon's configuration: what the command line and the configuration file say together. */

import { UsageError } from "./config-error.ts";
import { type ConfigFile, readConfigFile } from "./config-file.ts";
import { withDefaults } from "./option-spec.ts";
import { PROCESS_OPTIONS } from "./options.ts";
import type { GivenProcessSettings, ProcessSettings } from "./process-settings.ts";
import { findBrokenProcessRule } from "./setting-rules.ts";
import type { TunnelSettings } from "./tunnel-settings.ts";

/** What the command line says. */
export type CommandLineConfig = {
  readonly foreground: boolean;
  /** Settings of the process; they override those of the file. */
  readonly process: GivenProcessSettings;
} & ({ readonly tunnel: TunnelSettings } | { readonly file: string });

/** The daemon's configuration, before names are resolved and keys are read. */
export interface Config {
  readonly process: ProcessSettings;
  readonly tunnels: readonly TunnelSettings[];
}

/**
 * Returns the configuration, reading the file if there is one.
 *
 * @throws ConfigError, UsageError
 */
export async function readConfig(commandLine: CommandLineConfig): Promise<Config> {
  const file = "file" in commandLine ? await readConfigFile(commandLine.file) : undefined;
  const given = { ...file?.process, ...commandLine.process };
  // Without a file, the command line was checked when it was parsed.
  if (file !== undefined) checkProcessRules(commandLine.process, given, file);
  const base = "file" in commandLine ? commandLine.file : commandLine.tunnel.source;
  return {
    process: {
      ...withDefaults(PROCESS_OPTIONS, given),
      foreground: commandLine.foreground,
      pidFile: given.pidFile ?? `${base}.pid`,
    },
    tunnels: "tunnel" in commandLine ? [commandLine.tunnel] : file!.tunnels,
  };
}

/**
 * @param typed - settings from the command line.
 * @param given - the same with those of the file.
 */
function checkProcessRules(typed: GivenProcessSettings, given: GivenProcessSettings, file: ConfigFile): void {
  const broken = findBrokenProcessRule(typed, ({ long }) => `--${long}`);
  if (broken !== undefined && findBrokenProcessRule(given, String) !== undefined)
    throw new UsageError(broken.message);
  const brokenInFile = findBrokenProcessRule(given, ({ long }) => long);
  if (brokenInFile !== undefined) throw file.errorAt(brokenInFile.spec, brokenInFile.message);
}
