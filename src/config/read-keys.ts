/** Reads the keys of `-d -k`: one key file, or a directory with one or more keys for each client. */
import { basename, join } from "node:path";
import { ConfigError } from "../config/config-error.ts";
import type { ClientSettings } from "../config/tunnel-settings.ts";
import { stat } from "../net/async-fs.ts";
import type { Secret } from "../protocol/secret.ts";
import { readKey } from "./read-key.ts";

/** A key and the file that it was read from. */
export interface NamedKey {
  /** The client's name; undefined for a single file. */
  readonly name?: string | undefined;
  /** Path of the file in the directory; undefined for a single file. */
  readonly path?: string | undefined;
  readonly secret: Secret;
}

/** Callbacks for problems with keys. */
export interface KeyReporter {
  warn(message: string): void;
  /** Called if a key is rejected but the others are accepted. */
  refuse(message: string): void;
  /** Called if a file is not a key. */
  ignore(message: string): void;
}

/** Result of `readKeys()`. */
export interface KeysRead {
  readonly keys: readonly NamedKey[];
  /** Settings by client; undefined for a client without any. Includes clients without a usable key. */
  readonly clients: ReadonlyMap<string, ClientSettings | undefined>;
}

/**
 * Reads the keys.
 *
 * @param previous - the active keys, for a reload: a key with a file that cannot be read is kept, and having no key is
 * allowed.
 * @throws ConfigError
 */
export async function readKeys(
  path: string,
  report: KeyReporter,
  previous: readonly NamedKey[] | undefined,
): Promise<KeysRead> {
  const found = path === "-" ? undefined : await stat(path).catch(() => undefined);
  if (!found?.isDirectory()) {
    const secret = await readKey(path, (message) => report.warn(message));
    return { keys: [{ secret }], clients: new Map() };
  }
  const known = (previous ?? [])
    .flatMap((key) => key.path ?? [])
    .filter((file) => join(path, basename(file)) === file);
  const { readKeyDirectory } = await import("../config/key-directory.ts");
  const directory = await readKeyDirectory(path, { known: known.map((file) => basename(file)) });
  const keys: NamedKey[] = directory.keys.map(({ name, file, secret }) => ({
    name,
    path: join(path, file),
    secret,
  }));
  for (const { file, kind, message } of directory.problems) {
    const kept = kind === "unreadable" ? previous?.find((key) => key.path === join(path, file)) : undefined;
    if (kept !== undefined) {
      report.warn(`${message}; keeping the previous key`);
      keys.push(kept);
    } else if (kind === "warning") report.warn(message);
    else if (kind === "ignored") report.ignore(message);
    else report.refuse(message);
  }
  if (keys.length === 0) {
    if (previous === undefined)
      throw new ConfigError([`no keys in ${path}: create one with spiped keys add`]);
    report.warn(`no keys in ${path}: no client can connect`);
  }
  return { keys, clients: directory.clients };
}
