/** Reading what `-k` names on the accepting side: one key file, or a directory of them, one or more for each client. */
import { stat } from "node:fs/promises";
import { basename, join } from "node:path";
import { ConfigError } from "../config/config-error.ts";
import { readKeyDirectory } from "../config/key-directory.ts";
import type { KeySettings } from "../config/key-settings.ts";
import type { Secret } from "../protocol/secret.ts";
import { readKey } from "./read-key.ts";

/** A key, and the file it came from. */
export interface NamedKey {
  /** The client's name; absent for a single file. */
  readonly name?: string | undefined;
  /** Path of its file in a directory; absent for a single file. */
  readonly path?: string | undefined;
  readonly secret: Secret;
}

/** Who is told of what is wrong with keys. */
export interface KeyReporter {
  warn(message: string): void;
  /** A key is not accepted, and the others are. */
  refuse(message: string): void;
  /** A file is no key. */
  ignore(message: string): void;
}

/** What `-k` gave. */
export interface KeysRead {
  readonly keys: readonly NamedKey[];
  /** The settings beside the keys, by client; clients that have none, or no key that can be used, are listed too. */
  readonly clients: ReadonlyMap<string, KeySettings | undefined>;
}

/**
 * Reads the keys.
 *
 * @param previous the keys in force, at a reload: one whose file cannot be read now stays, and no key at all is allowed.
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
  const directory = await readKeyDirectory(path, { known: known.map((file) => basename(file)) });
  const keys: NamedKey[] = directory.keys.map(({ name, file, secret }) => ({
    name,
    path: join(path, file),
    secret,
  }));
  for (const { file, kind, message } of directory.problems) {
    const kept = kind === "unreadable" ? previous?.find((key) => key.path === join(path, file)) : undefined;
    if (kept !== undefined) {
      report.warn(`${message}; the key that was read before stays`);
      keys.push(kept);
    } else if (kind === "warning") report.warn(message);
    else if (kind === "ignored") report.ignore(message);
    else report.refuse(message);
  }
  if (keys.length === 0) {
    if (previous === undefined) throw new ConfigError([`No keys in ${path}: put a key file into it`]);
    report.warn(`No keys in ${path}: nobody can connect`);
  }
  return { keys, clients: directory.clients };
}
