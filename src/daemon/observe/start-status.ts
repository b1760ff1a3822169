/** The status address: what `--metrics` and its options ask for. */
import { open } from "node:fs/promises";
import { bindHint } from "../../config/address-hints.ts";
import { addressOf, firstAddress } from "../../config/addresses.ts";
import { ConfigError } from "../../config/config-error.ts";
import type { ProcessSettings } from "../../config/process-settings.ts";
import { parseAddress } from "../../net/address.ts";
import { systemErrorText } from "../../net/system-error.ts";
import { BearerToken, isExposed } from "./status-access.ts";
import { type StatusSource, serveStatus } from "./status-server.ts";

/** A shorter token could be guessed. */
const MIN_TOKEN_BYTES = 16;

/** Longer than any token; what is longer is the wrong file. */
const MAX_TOKEN_BYTES = 4096;

/**
 * Serves what `--metrics` asks for.
 *
 * @param token the one that is required at the moment.
 * @returns a function that stops it.
 * @throws ConfigError, UsageError
 */
export async function startStatus(
  settings: ProcessSettings & { readonly metrics: string },
  source: StatusSource,
  token: () => BearerToken | undefined,
  warn: (message: string) => void,
): Promise<() => void> {
  const { metrics } = settings;
  const { address, addresses } = await addressOf(metrics, "--metrics", parseAddress);
  const where = firstAddress(addresses, metrics, warn);
  const hosts = [...settings.metricsHosts, ...(address.kind === "name" ? [address.host] : [])];
  const stop = await serveStatus(where, source, { exposed: settings.metricsPublic, hosts, token }).catch(
    (error: Error) => {
      const hint = bindHint(where, error);
      throw new ConfigError([
        `Cannot serve metrics on ${metrics}: ${systemErrorText(error)}`,
        ...(hint === undefined ? [] : [hint]),
      ]);
    },
  );
  if (isExposed(where) && token() === undefined) {
    warn(
      `--metrics ${metrics} has no authentication: whoever reaches it reads metrics and the status page; --metrics-token-file FILE requires a token`,
    );
  }
  return stop;
}

/**
 * Reads the file of `--metrics-token-file`; blanks and newlines at its end do not count.
 *
 * @throws ConfigError
 */
export async function readToken(path: string, warn: (message: string) => void): Promise<BearerToken> {
  const contents = Buffer.alloc(MAX_TOKEN_BYTES);
  try {
    const size = await fill(contents, path, warn).catch((error: Error) => {
      throw new ConfigError([`Cannot read the token file ${path}: ${systemErrorText(error)}`]);
    });
    // "latin1", so that no byte is lost before the check.
    const token = contents.subarray(0, contents.toString("latin1", 0, size).trimEnd().length);
    if (token.length < MIN_TOKEN_BYTES || size === MAX_TOKEN_BYTES || !token.every(isTokenByte)) {
      throw new ConfigError([
        `The token file ${path} must have ${MIN_TOKEN_BYTES} or more visible ASCII characters in one line; openssl rand -hex 32 makes a token`,
      ]);
    }
    return new BearerToken(token);
  } finally {
    contents.fill(0);
  }
}

/** Reads a file into a buffer; returns how many bytes there were, up to the buffer's size. */
async function fill(buffer: Buffer, path: string, warn: (message: string) => void): Promise<number> {
  const file = await open(path);
  try {
    const status = await file.stat();
    if (status.isFile() && (status.mode & 0o004) !== 0) {
      warn(`Everyone on this machine can read the token in ${path}: run chmod 600 ${path}`);
    }
    let size = 0;
    for (;;) {
      const { bytesRead } = await file.read(buffer, size, buffer.length - size);
      size += bytesRead;
      if (bytesRead === 0) return size;
    }
  } finally {
    await file.close();
  }
}

/** True for what a token in an Authorization header may consist of, blanks excluded. */
function isTokenByte(byte: number): boolean {
  return byte > 0x20 && byte < 0x7f;
}
