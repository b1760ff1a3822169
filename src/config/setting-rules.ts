/** Rules that span several settings. They hold for the command line and for files. */
import type { OptionSpec, SettingValues } from "./option-spec.ts";
import { PROCESS_OPTIONS, TUNNEL_OPTIONS } from "./options.ts";
import type { GivenProcessSettings } from "./process-settings.ts";
import type { TunnelSettings } from "./tunnel-settings.ts";

/** A broken rule. */
export interface BrokenRule {
  /** The setting that breaks it. */
  readonly spec: OptionSpec;
  readonly message: string;
}

/** Returns the name of a setting as the user wrote it: `-k`, or `key` in a file. */
export type NameOf = (spec: OptionSpec) => string;

/** Returns the first rule that a tunnel's settings break. */
export function findBrokenTunnelRule(settings: TunnelSettings, nameOf: NameOf): BrokenRule | undefined {
  const { encrypt, decrypt } = TUNNEL_OPTIONS;
  if (!settings.encrypt && !settings.decrypt) {
    const message = `either ${nameOf(encrypt)} or ${nameOf(decrypt)} is required`;
    return { spec: encrypt, message };
  }
  return findExclusive(TUNNEL_OPTIONS, settings, nameOf);
}

/** Returns the rule that is broken if two settings cannot be used together, and neither has its default. */
export function findExclusive<Table extends Readonly<Record<string, OptionSpec>>>(
  table: Table,
  settings: Partial<SettingValues<Table>>,
  nameOf: NameOf,
): BrokenRule | undefined {
  const given = Object.entries<OptionSpec>(table)
    .filter(([name, spec]) => settings[name as keyof Table] !== spec.default)
    .map(([, spec]) => spec);
  for (const first of given) {
    const second = given.find(({ long }) => long === first.excludes);
    if (second !== undefined)
      return { spec: second, message: `${nameOf(first)} and ${nameOf(second)} cannot be used together` };
  }
  return undefined;
}

/** Returns the first rule that the process's settings break. */
export function findBrokenProcessRule(
  settings: GivenProcessSettings,
  nameOf: NameOf,
): BrokenRule | undefined {
  const { metrics, metricsPublic, metricsTokenFile, metricsHost } = settings;
  if (metrics !== undefined) return undefined;
  const p = PROCESS_OPTIONS;
  const needsMetrics = (spec: OptionSpec): BrokenRule => ({
    spec,
    message: `${nameOf(spec)} requires ${nameOf(p.metrics)}`,
  });
  if (metricsPublic) return needsMetrics(p.metricsPublic);
  if (metricsTokenFile !== undefined) return needsMetrics(p.metricsTokenFile);
  return metricsHost === undefined ? undefined : needsMetrics(p.metricsHost);
}
