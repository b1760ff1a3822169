/** A tunnel's settings, from the command line or a file, before names are resolved and keys are read. */
import type { KeySettings } from "./key-settings.ts";

/** A tunnel's settings. Times are in s; `Infinity` means no limit. */
export interface TunnelSettings {
  /** Name from the configuration file; undefined for the tunnel of a command line. */
  readonly name?: string | undefined;
  readonly mode: "encrypt" | "decrypt";
  readonly source: string;
  /** Targets in order of preference. */
  readonly targets: readonly string[];
  /** Path of a key file or directory, or `-` for standard input. */
  readonly key: string;
  /** Restrictions by client name. */
  readonly keySettings?: Readonly<Record<string, KeySettings>> | undefined;
  readonly bind?: string | undefined;
  readonly weak: boolean;
  readonly requireForwardSecrecy: boolean;
  readonly keepAlive: boolean;
  readonly maxConnections: number;
  readonly timeout: number;
  readonly idleTimeout: number;
  readonly resolveInterval: number;
  readonly allow?: readonly string[] | undefined;
  readonly acceptProxy?: readonly string[] | undefined;
  readonly sendProxy?: "v1" | "v2" | undefined;
  readonly penaltyExempt?: readonly string[] | undefined;
  readonly socketMode?: number | undefined;
  readonly socketOwner?: string | undefined;
}

/** Default of `-n`, the maximum number of connections. */
export const DEFAULT_MAX_CONNECTIONS = 100;
/** Default of `-r`, in s. */
export const DEFAULT_RESOLVE_INTERVAL_S = 60;

/** Parses octal permissions such as 0660; returns undefined if they are invalid. */
export function parseMode(text: string): number | undefined {
  return /^0?[0-7]{3}$/.test(text) ? Number.parseInt(text, 8) : undefined;
}
