/** A tunnel's settings, from the command line or a file, before names are resolved and keys are read. */
import type { SettingValues } from "./option-spec.ts";
import type { CLIENT_SETTINGS, TUNNEL_OPTIONS } from "./options.ts";

/** Settings of one client. */
export type ClientSettings = SettingValues<typeof CLIENT_SETTINGS>;

/** A tunnel's settings. Times are in ms; `Infinity` means no limit. */
export interface TunnelSettings extends SettingValues<typeof TUNNEL_OPTIONS> {
  /** Name from the configuration file; undefined for the tunnel of a command line. */
  readonly name?: string | undefined;
  /** Restrictions by client name. */
  readonly clients?: ReadonlyMap<string, ClientSettings> | undefined;
}
