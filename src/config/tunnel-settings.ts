/** What a person asks for: a tunnel's settings, from the command line or a file, before anything is looked up or read. */
import type { KeySettings } from "./key-settings.ts";

/** A tunnel. Times are in s; `Infinity` stands for no limit. */
export interface TunnelSettings {
  /** Absent for the one tunnel of a command line. */
  readonly name?: string | undefined;
  readonly mode: "encrypt" | "decrypt";
  readonly source: string;
  /** In order of preference. */
  readonly targets: readonly string[];
  /** A file, a directory, or `-`. */
  readonly key: string;
  /** By name of the client. */
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

export const DEFAULT_LIMIT = 100;
export const DEFAULT_RESOLVE_INTERVAL = 60;

/** Permissions in octal, as `chmod` takes them; undefined if they are none. */
export function parseMode(text: string): number | undefined {
  return /^0?[0-7]{3}$/.test(text) ? Number.parseInt(text, 8) : undefined;
}
