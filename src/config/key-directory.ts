/**
 * A directory of keys, with one or more for each client. `NAME.key` and `NAME.ANYTHING.key` are keys of the client
 * NAME, which can therefore have two during a key rotation; `NAME.toml` restricts that client. All other files are
 * reported as ignored, except those with a name that begins with a dot.
 */
import { constants } from "node:fs";
import { open, readdir } from "node:fs/promises";
import { join } from "node:path";
import { systemErrorText } from "../net/system-error.ts";
import { Secret } from "../protocol/secret.ts";
import { readClientSettings } from "./client-settings-file.ts";
import { ConfigError } from "./config-error.ts";
import { type KeyFacts, MIN_KEY_BYTES, warningsFor } from "./key-file.ts";
import { isPrintable } from "./printable.ts";
import type { ClientSettings } from "./tunnel-settings.ts";

const KEY = ".key";
const SETTINGS = ".toml";

/** A key in a directory. */
export interface DirectoryKey extends KeyFacts {
  /** The client's name: the file name up to its first dot. */
  readonly name: string;
  /** Name of the file in the directory. */
  readonly file: string;
  readonly secret: Secret;
}

/** A problem with a file in a directory. */
interface KeyProblem {
  readonly file: string;
  /**
   * `ignored`: the file is not used; `refused`: its contents are too short for a key; `unreadable`: it could not be
   * read; `warning`: it is used nevertheless; `settings`: the client's settings are invalid and the daemon does not
   * start.
   */
  readonly kind: "ignored" | "refused" | "unreadable" | "warning" | "settings";
  /** One sentence that names the file. */
  readonly message: string;
}

/** The contents of a key directory. */
export interface KeyDirectory {
  /** Keys, sorted by file name. */
  readonly keys: readonly DirectoryKey[];
  /** Settings by client; undefined for a client without any. Includes clients without a usable key. */
  readonly clients: ReadonlyMap<string, ClientSettings | undefined>;
  readonly problems: readonly KeyProblem[];
}

/** Options of `readKeyDirectory()`. */
export interface ReadOptions {
  /** Files to try even if the system does not list them: a listing can omit files that are being renamed. */
  readonly known?: readonly string[];
  /**
   * Report invalid settings as a problem instead of throwing. The client then appears to have none: do not serve it.
   */
  readonly keepGoing?: boolean;
}

/** Returns true if the settings of a client are invalid. */
export function hasWrongSettings({ problems }: KeyDirectory, name: string): boolean {
  return problems.some(({ kind, file }) => kind === "settings" && file === name + SETTINGS);
}

/** Returns the client that a key file belongs to; undefined if `file` is not the name of a key file. */
export function clientNameFromFile(file: string): string | undefined {
  return file.endsWith(KEY) && !file.startsWith(".") ? file.slice(0, file.indexOf(".")) : undefined;
}

/**
 * Reads a directory. Files that are deleted meanwhile are skipped.
 *
 * @throws ConfigError if the directory cannot be read, or, unless `keepGoing` is set, if a client's settings are
 * invalid.
 */
export async function readKeyDirectory(
  directory: string,
  { known = [], keepGoing = false }: ReadOptions = {},
): Promise<KeyDirectory> {
  const listed = await readdir(directory).catch((error: unknown) => {
    throw new ConfigError([`cannot read ${directory}: ${systemErrorText(error)}`], { cause: error });
  });
  const files = [...new Set([...listed, ...known])].filter((file) => !file.startsWith(".")).sort();
  const keys: DirectoryKey[] = [];
  const clients = new Map<string, ClientSettings | undefined>();
  const problems: KeyProblem[] = [];
  const report = (file: string, kind: KeyProblem["kind"], message: string) =>
    problems.push({ file, kind, message });
  const ignore = (file: string, why: string) =>
    report(file, "ignored", `ignoring ${join(directory, file)}: ${why}`);
  const settingsOf = async (name: string) => {
    try {
      return await readClientSettings(join(directory, name + SETTINGS));
    } catch (error) {
      if (!keepGoing || !(error instanceof ConfigError)) throw error;
      for (const line of error.lines) report(name + SETTINGS, "settings", line);
      return undefined;
    }
  };

  for (const file of files) {
    const name = clientNameFromFile(file);
    if (!isPrintable(file)) {
      ignore(file, "its name contains unprintable characters");
    } else if (name !== undefined) {
      const path = join(directory, file);
      const found = await readEntry(path);
      if (found === "absent") continue;
      if (found === "special") {
        ignore(file, "it is not a regular file");
        continue;
      }
      if (!clients.has(name)) clients.set(name, await settingsOf(name));
      if (found instanceof Error) {
        report(file, "unreadable", `cannot read ${path}: ${systemErrorText(found)}`);
      } else if (found.bytes < MIN_KEY_BYTES) {
        found.secret.destroy();
        report(file, "refused", `rejecting ${path}: ${tooShort(found.bytes)}`);
      } else {
        for (const warning of warningsFor(path, found)) report(file, "warning", warning);
        keys.push({ name, file, ...found });
      }
    } else if (!file.endsWith(SETTINGS)) {
      ignore(file, `only files named NAME${KEY} are keys`);
    }
  }
  for (const file of files.filter((file) => file.endsWith(SETTINGS) && isPrintable(file))) {
    const name = file.slice(0, -SETTINGS.length);
    const client = name.slice(0, name.indexOf("."));
    if (name.includes(".")) ignore(file, `the settings of ${client} are in ${client}${SETTINGS}`);
    else if (!clients.has(name))
      report(file, "ignored", `ignoring ${join(directory, file)}: no key with that name`);
  }
  return { keys, clients, problems };
}

function tooShort(bytes: number): string {
  const found = bytes === 0 ? "it is empty" : `it has ${bytes} bytes`;
  return `${found}; a key needs at least ${MIN_KEY_BYTES}; create one with spiped keys`;
}

/** @returns an Error if the file exists but cannot be read. */
async function readEntry(
  path: string,
): Promise<(KeyFacts & { readonly secret: Secret }) | "absent" | "special" | Error> {
  try {
    // Without O_NONBLOCK, opening a FIFO would block until it has a writer.
    const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      const status = await file.stat();
      if (!status.isFile()) return "special";
      const contents = await file.readFile();
      const secret = Secret.fromKeyFile(contents);
      contents.fill(0);
      return { secret, bytes: contents.length, mode: status.mode & 0o777, modified: status.mtime };
    } finally {
      await file.close();
    }
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT") return "absent";
    return code === "ENXIO" ? "special" : (error as Error);
  }
}
