/**
 * The library: the same encrypted pipe that `spiped` and `spipe` speak, inside a Node program.
 *
 * @example
 * ```ts
 * import { connect, loadKey } from "spiped";
 *
 * const socket = await connect({ host: "mail.example.org", port: 8025, key: await loadKey("/etc/spiped/mail.key") });
 * socket.end("EHLO\r\n");
 * socket.pipe(process.stdout);
 * ```
 *
 * @module
 */
import { readdir, readFile, stat } from "node:fs/promises";
import { join, parse } from "node:path";
import { Secret } from "./protocol/secret.ts";

export { type ConnectOptions, connect } from "./library/client.ts";
export { httpAgent } from "./library/http-agent.ts";
export { type RedisConnector, redisConnector } from "./library/redis-connector.ts";
export { createServer, type ServerOptions, type SpipedServer } from "./library/server.ts";
export {
  HandshakeError,
  type HandshakeErrorCode,
  PacketError,
  type PacketErrorCode,
  SpipedError,
} from "./protocol/errors.ts";
export { Secret } from "./protocol/secret.ts";
export { ConnectError, type ConnectErrorCode } from "./tunnel/errors.ts";
export { ResolveError } from "./tunnel/resolve.ts";
export type { SpipedSocket } from "./tunnel/spiped-socket.ts";

/**
 * Reads a key file. All its bytes count, as with `spiped -k`.
 *
 * @param file path of the file.
 * @returns the secret, for `connect()` and `createServer()`.
 * @throws the system's error if the file can't be read.
 */
export async function loadKey(file: string | URL): Promise<Secret> {
  const contents = await readFile(file);
  const secret = Secret.fromKeyFile(contents);
  contents.fill(0);
  return secret;
}

/**
 * Reads a directory of key files, as `spiped -d -k DIRECTORY`: each regular file is a key, and the file's name without
 * its extension is its name, but for names that begin with a dot and for `.toml` files.
 *
 * @returns the secrets by name, for `createServer({ keys })`.
 * @throws the system's error if something can't be read; Error if two files give the same name.
 */
export async function loadKeys(directory: string): Promise<Map<string, Secret>> {
  const keys = new Map<string, Secret>();
  for (const file of (await readdir(directory)).sort()) {
    const path = join(directory, file);
    if (file.startsWith(".") || file.endsWith(".toml") || !(await stat(path)).isFile()) continue;
    const { name } = parse(file);
    if (keys.has(name)) throw new Error(`two keys are named ${name} in ${directory}`);
    keys.set(name, await loadKey(path));
  }
  return keys;
}
