/** The restrictions of one client: `NAME.toml` in a key directory, or `[tunnels.TUNNEL.keys.NAME]`. */
import { readFile } from "node:fs/promises";
import { systemErrorText } from "../net/system-error.ts";
import { ConfigError } from "./config-error.ts";
import { parseToml, toValidationIssue } from "./toml.ts";

/** Settings of one client. */
export interface KeySettings {
  /** Targets that replace the tunnel's. */
  readonly targets?: readonly string[] | undefined;
  readonly maxConnections?: number | undefined;
  readonly expires?: Date | undefined;
}

/**
 * Loads valibot only when a file is read, since most daemons read none; returns it with the schemas that files share.
 */
export async function loadSchemas() {
  const v = await import("valibot");
  const oneOrMore = v.pipe(
    v.union(
      [v.string(), v.pipe(v.array(v.string()), v.minLength(1, "must not be empty"))],
      "must be a string or a list of strings",
    ),
    v.transform((value) => (typeof value === "string" ? [value] : value)),
  );
  const count = v.pipe(
    v.number(),
    v.integer("must be a whole number"),
    v.minValue(0, "must not be negative"),
  );
  const key = v.pipe(
    v.strictObject({
      target: v.optional(oneOrMore),
      "max-connections": v.optional(count),
      expires: v.optional(v.date("must be a date, such as 2027-01-31")),
    }),
    v.transform(
      (fields): KeySettings => ({
        targets: fields.target,
        maxConnections: fields["max-connections"] === 0 ? undefined : fields["max-connections"],
        expires: fields.expires,
      }),
    ),
  );
  return { v, oneOrMore, count, key };
}

/**
 * Reads the settings of one client.
 *
 * @returns undefined if the file does not exist.
 * @throws ConfigError
 */
export async function readKeySettings(path: string): Promise<KeySettings | undefined> {
  const { v, key } = await loadSchemas();
  const text = await readFile(path, "utf8").catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return undefined;
    throw new ConfigError([`Cannot read ${path}: ${systemErrorText(error)}`], { cause: error });
  });
  if (text === undefined) return undefined;
  const { value, makeError } = await parseToml(path, text);
  const result = v.safeParse(key, value);
  if (!result.success) throw makeError(result.issues.map((issue) => toValidationIssue(issue)));
  return result.output;
}
