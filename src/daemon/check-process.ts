/** Checks the settings of the process without applying them, for `--check-config`. */
import { ConfigError } from "../config/config-error.ts";
import type { ProcessSettings } from "../config/process-settings.ts";
import { ownerIds, PrivilegeError } from "./process/privileges.ts";

/**
 * Looks up the user, reads the token file, and resolves the address for metrics.
 *
 * @throws ConfigError, UsageError
 */
export async function checkProcess(
  settings: ProcessSettings,
  warn: (message: string) => void,
): Promise<void> {
  const { user, metrics, metricsTokenFile } = settings;
  if (user !== undefined) checkUser(user);
  if (metrics === undefined) return;
  const { readToken, resolveStatusAddress } = await import("./observe/start-status.ts");
  if (metricsTokenFile !== undefined) await readToken(metricsTokenFile, warn);
  await resolveStatusAddress({ ...settings, metrics }, warn);
}

function checkUser(spec: string): void {
  try {
    ownerIds(spec);
  } catch (error) {
    if (error instanceof PrivilegeError) throw new ConfigError([error.message]);
    throw error;
  }
}
