/** Reads keys from files. */
import { readFile } from "node:fs/promises";
import { ConfigError } from "../config/config-error.ts";
import { readKeyDirectory } from "../config/key-directory.ts";
import { Secret } from "../protocol/secret.ts";
import type { Key } from "./create-server.ts";

/**
 * Reads a key file. All its bytes belong to the key, as with `spiped -k`.
 *
 * @param file - path of the file.
 * @returns the secret, for `connect()` and `createServer()`.
 * @throws the system's error if the file cannot be read; SpipedError with code `ERR_SPIPED_CONFIG` if it is empty.
 */
export async function loadKey(file: string | URL): Promise<Secret> {
  const contents = await readFile(file);
  if (contents.length === 0) throw new ConfigError([`no key in ${String(file)}: it is empty`]);
  const secret = Secret.fromKeyFile(contents);
  contents.fill(0);
  return secret;
}

/** Options of `loadKeys()`. */
export interface LoadKeysOptions {
  /**
   * Called for each file that is ignored, rejected or unreadable, and for each key that is world-readable or short,
   * with a sentence that names the file. Defaults to `process.emitWarning`.
   */
  readonly onWarning?: (message: string) => void;
}

/**
 * Reads a directory of keys by the rules of `spiped -d -k DIRECTORY`: `NAME.key` and `NAME.ANYTHING.key` are keys of
 * the client NAME; a key of fewer than 16 bytes is rejected; `expires` in `NAME.toml` applies to all keys of that
 * client. The other fields of that file, `target` and `max-connections`, are ignored.
 *
 * @returns the keys, for `createServer({ keys })`, sorted by file name.
 * @throws SpipedError with code `ERR_SPIPED_CONFIG` if the directory cannot be read, or a `.toml` file cannot be read
 * or is invalid.
 */
export async function loadKeys(directory: string, options: LoadKeysOptions = {}): Promise<Key[]> {
  const { onWarning = (message: string) => process.emitWarning(message, "SpipedWarning") } = options;
  const { keys, clients, problems } = await readKeyDirectory(directory);
  for (const { message } of problems) onWarning(message);
  return keys.map(({ name, secret }) => {
    const expires = clients.get(name)?.expires;
    return expires === undefined ? { name, secret } : { name, secret, expires: new Date(expires) };
  });
}
