/** Rules that span several settings. They hold for the command line and for files. */
import type { OptionSpec } from "./option-spec.ts";
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
  const { encrypt, decrypt, weakHandshake, requireForwardSecrecy, resolveInterval, noResolve } = settings;
  const t = TUNNEL_OPTIONS;
  if (encrypt && decrypt) return exclusive(t.encrypt, t.decrypt, nameOf);
  if (!encrypt && !decrypt) {
    const message = `${nameOf(t.encrypt)} or ${nameOf(t.decrypt)} is missing: which side is encrypted`;
    return { spec: t.encrypt, message };
  }
  if (weakHandshake && requireForwardSecrecy)
    return exclusive(t.weakHandshake, t.requireForwardSecrecy, nameOf);
  if (noResolve && resolveInterval !== t.resolveInterval.default)
    return exclusive(t.resolveInterval, t.noResolve, nameOf);
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
    message: `${nameOf(spec)} needs ${nameOf(p.metrics)}`,
  });
  if (metricsPublic) return needsMetrics(p.metricsPublic);
  if (metricsTokenFile !== undefined) return needsMetrics(p.metricsTokenFile);
  return metricsHost === undefined ? undefined : needsMetrics(p.metricsHost);
}

function exclusive(first: OptionSpec, second: OptionSpec, nameOf: NameOf): BrokenRule {
  return { spec: second, message: `${nameOf(first)} and ${nameOf(second)} exclude each other` };
}
