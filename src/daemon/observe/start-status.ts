/** Starts the status server from the settings of `--metrics` and its related options. */
import { open } from "node:fs/promises";
import { bindHint } from "../../config/address-hints.ts";
import { firstAddress, resolveOption } from "../../config/addresses.ts";
import { ConfigError } from "../../config/config-error.ts";
import type { ProcessSettings } from "../../config/process-settings.ts";
import { type Address, parseAddress, type ResolvedAddress } from "../../net/address.ts";
import { systemErrorText } from "../../net/system-error.ts";
import { BearerToken, isExposed } from "./status-access.ts";
import { type StatusSource, serveStatus } from "./status-server.ts";

/** Minimum token length, in bytes; shorter ones could be guessed. */
const MIN_TOKEN_BYTES = 16;

/** Maximum size of a token file, in bytes; a larger file cannot be a token. */
const MAX_TOKEN_BYTES = 4096;

/**
 * Starts the status server.
 *
 * @param token - returns the token that is currently required.
 * @returns a function that stops the server.
 * @throws ConfigError, UsageError
 */
export async function startStatus(
  settings: ProcessSettings & { readonly metrics: string },
  source: StatusSource,
  token: () => BearerToken | undefined,
  warn: (message: string) => void,
): Promise<() => void> {
  const { metrics } = settings;
  const { address, resolved } = await resolveStatusAddress(settings, warn);
  const hosts = [...(settings.metricsHost ?? []), ...(address.kind === "name" ? [address.host] : [])];
  const stop = await serveStatus(resolved, source, { hosts, token }).catch((error: unknown) => {
    const hint = bindHint(resolved, error);
    throw new ConfigError([
      `cannot serve metrics on ${metrics}: ${systemErrorText(error)}`,
      ...(hint === undefined ? [] : [hint]),
    ]);
  });
  if (isExposed(resolved) && token() === undefined) {
    warn(
      `--metrics ${metrics} requires no token: anyone who can connect can read the metrics and the status page; set one with --metrics-token-file`,
    );
  }
  return stop;
}

/**
 * Resolves the address of `--metrics`.
 *
 * @throws ConfigError, UsageError
 */
export async function resolveStatusAddress(
  { metrics, metricsPublic }: ProcessSettings & { readonly metrics: string },
  warn: (message: string) => void,
): Promise<{ readonly address: Address; readonly resolved: ResolvedAddress }> {
  const { address, addresses } = await resolveOption(metrics, "--metrics", parseAddress);
  const resolved = firstAddress(addresses, metrics, warn);
  if (isExposed(resolved) && !metricsPublic)
    throw new ConfigError([
      `cannot serve metrics on ${metrics}: neither a loopback address nor a UNIX socket; allow it with --metrics-public`,
    ]);
  return { address, resolved };
}

/**
 * Reads the file of `--metrics-token-file`, ignoring trailing whitespace.
 *
 * @throws ConfigError
 */
export async function readToken(path: string, warn: (message: string) => void): Promise<BearerToken> {
  const contents = Buffer.alloc(MAX_TOKEN_BYTES);
  try {
    const size = await readInto(contents, path, warn).catch((error: unknown) => {
      throw new ConfigError([`cannot read the token file ${path}: ${systemErrorText(error)}`]);
    });
    // "latin1" maps each byte to one character, so the length is that in bytes.
    const token = contents.subarray(0, contents.toString("latin1", 0, size).trimEnd().length);
    if (token.length < MIN_TOKEN_BYTES || size === MAX_TOKEN_BYTES || !token.every(isTokenByte)) {
      throw new ConfigError([
        `token file ${path} must contain one line of at least ${MIN_TOKEN_BYTES} visible ASCII characters; create one with openssl rand -hex 32`,
      ]);
    }
    return new BearerToken(token);
  } finally {
    contents.fill(0);
  }
}

/** Reads a file into a buffer; resolves with the number of bytes read, at most the buffer's size. */
async function readInto(buffer: Buffer, path: string, warn: (message: string) => void): Promise<number> {
  const file = await open(path);
  try {
    const status = await file.stat();
    if (status.isFile() && (status.mode & 0o004) !== 0) {
      warn(`token file ${path} is world-readable; run chmod 600 ${path}`);
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

/** Returns true for visible ASCII, the characters allowed in a token. */
function isTokenByte(byte: number): boolean {
  return byte > 0x20 && byte < 0x7f;
}
