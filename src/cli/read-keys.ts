/** Reading what `-k` names on the accepting side: one key file, or a directory of them, one for each peer. */
import { readdir, stat } from "node:fs/promises";
import { join, parse } from "node:path";
import type { Secret } from "../protocol/secret.ts";
import { systemErrorText } from "../tunnel/system-error.ts";
import { CommandError } from "./command-error.ts";
import { readKeySettings } from "./config-file.ts";
import { readKey } from "./read-key.ts";
import type { KeySettings } from "./settings.ts";

const SETTINGS = ".toml";

/** A key, its name, and what is said of it beside it. */
export interface NamedKey {
  /** Absent for a single file. */
  readonly name?: string;
  readonly secret: Secret;
  readonly settings?: KeySettings | undefined;
}

/**
 * Reads the keys. Each regular file of a directory is one, and the file's name without its extension is the peer's,
 * but for `NAME.toml`, which says what holds for NAME, and for names that begin with a dot.
 *
 * @param warn told of files that everyone can read.
 * @throws CommandError
 */
export async function readKeys(path: string, warn: (message: string) => void): Promise<NamedKey[]> {
  const found = path === "-" ? undefined : await stat(path).catch(() => undefined);
  if (!found?.isDirectory()) {
    return [{ secret: await readKey(path, warn) }];
  }
  const names = await readdir(path).catch((error: Error) => {
    throw new CommandError(`Cannot read ${path}: ${systemErrorText(error)}`);
  });
  const keys: NamedKey[] = [];
  for (const file of names.sort()) {
    if (file.startsWith(".") || file.endsWith(SETTINGS)) continue;
    const full = join(path, file);
    const entry = await stat(full).catch((error: Error) => {
      throw new CommandError(`Cannot read ${full}: ${systemErrorText(error)}`);
    });
    if (!entry.isFile()) continue;
    const { name } = parse(file);
    const secret = await readKey(full, warn);
    keys.push({ name, secret, settings: await readKeySettings(join(path, name + SETTINGS)) });
  }
  for (const file of names) {
    const { name, ext } = parse(file);
    if (ext === SETTINGS && !keys.some((key) => key.name === name)) {
      warn(`${join(path, file)} says what holds for a key that is not there`);
    }
  }
  if (keys.length === 0) throw new CommandError(`No keys in ${path}: put a key file into it`);
  return keys;
}
