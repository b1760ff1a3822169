/** `--generate-key` and `--check-key`: create a key, and show the fingerprint to compare on two machines. */
import { randomBytes } from "node:crypto";
import { open, stat } from "node:fs/promises";
import { ConfigError } from "../config/config-error.ts";
import { KEY_BYTES } from "../config/key-file.ts";
import { readKey } from "../config/read-key.ts";
import { writeError } from "../daemon/observe/line-writer.ts";
import { systemErrorText } from "../net/system-error.ts";
import { fingerprint } from "../protocol/fingerprint.ts";
import { Secret } from "../protocol/secret.ts";

/**
 * Writes a new random key to a file that only its owner can read.
 *
 * @returns the exit status.
 * @throws ConfigError if the file exists or cannot be written.
 */
export async function generateKey(path: string): Promise<number> {
  const key = randomBytes(KEY_BYTES);
  try {
    const file = await open(path, "wx", 0o600);
    try {
      await file.writeFile(key);
      await file.sync();
    } finally {
      await file.close();
    }
  } catch (error) {
    throw new ConfigError([`cannot write a key to ${path}: ${systemErrorText(error)}`]);
  }
  const secret = Secret.fromKeyFile(key);
  key.fill(0);
  process.stdout.write(`${path}: new key of ${KEY_BYTES} bytes, fingerprint ${fingerprint(secret)}\n`);
  secret.destroy();
  return 0;
}

/**
 * Prints a key's size, permissions and fingerprint.
 *
 * @returns the exit status.
 * @throws ConfigError if the key cannot be read.
 */
export async function checkKey(path: string): Promise<number> {
  const status = path === "-" ? undefined : await stat(path).catch(() => undefined);
  if (status?.isDirectory())
    throw new ConfigError([`${path} is a directory; list its keys with spiped keys list ${path}`]);
  const secret = await readKey(path, (warning) => writeError(`spiped: ${warning}\n`));
  const facts =
    status === undefined
      ? "key"
      : `key of ${status.size} bytes, permissions ${(status.mode & 0o777).toString(8).padStart(4, "0")}`;
  process.stdout.write(`${path}: ${facts}, fingerprint ${fingerprint(secret)}\n`);
  secret.destroy();
  return 0;
}
