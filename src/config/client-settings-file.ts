/** Reads `NAME.toml` in a key directory, the restrictions of one client. */
import { readFile } from "../net/async-fs.ts";
import { systemErrorText } from "../net/system-error.ts";
import { ConfigError } from "./config-error.ts";
import { parseToml, toValidationIssue } from "./toml.ts";
import { clientSchema, loadValibot } from "./toml-schema.ts";
import type { ClientSettings } from "./tunnel-settings.ts";

/**
 * Reads the settings of one client.
 *
 * @returns undefined if the file does not exist.
 * @throws ConfigError
 */
export async function readClientSettings(path: string): Promise<ClientSettings | undefined> {
  const v = await loadValibot();
  const text = await readFile(path, "utf8").catch((error: unknown) => {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw new ConfigError([`cannot read ${path}: ${systemErrorText(error)}`], { cause: error });
  });
  if (text === undefined) return undefined;
  const { value, makeError } = await parseToml(path, text);
  const result = v.safeParse(clientSchema(v), value);
  if (!result.success) throw makeError(result.issues.map((issue) => toValidationIssue(issue)));
  return result.output;
}
