/** Settings of the process, which are independent of its tunnels. */
import type { SettingValues } from "./option-spec.ts";
import type { PROCESS_OPTIONS } from "./options.ts";

/** Settings of the process, as given. */
export type GivenProcessSettings = Partial<SettingValues<typeof PROCESS_OPTIONS>>;

/** Settings of the process. */
export interface ProcessSettings extends SettingValues<typeof PROCESS_OPTIONS> {
  readonly foreground: boolean;
  readonly pidFile: string;
}
