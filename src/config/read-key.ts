/** Reads the key file of a tunnel or of `spipe` (`-k`). */
import { open } from "node:fs/promises";
import { ConfigError } from "../config/config-error.ts";
import { warningsFor } from "../config/key-file.ts";
import { systemErrorText } from "../net/system-error.ts";
import { Secret } from "../protocol/secret.ts";

const ONE_KEY = "only spiped -d accepts a key directory";

/**
 * Reads an entire key file; `-` is standard input, read to EOF.
 *
 * @param warn - called if the file is world-readable or short.
 * @throws ConfigError with Tarsnap's messages, or if the key is empty.
 */
export async function readKey(path: string, warn: (message: string) => void): Promise<Secret> {
  const isStdin = path === "-";
  const { contents, mode } = isStdin ? { contents: await readStdin(), mode: 0 } : await readEntireFile(path);
  const where = isStdin ? "standard input" : path;
  if (contents.length === 0) {
    throw unreadable(`no key in ${where}: it is empty`, "create a key with spiped --generate-key");
  }
  for (const warning of warningsFor(where, { bytes: contents.length, mode })) warn(warning);
  const secret = Secret.fromKeyFile(contents);
  contents.fill(0);
  return secret;
}

async function readEntireFile(path: string): Promise<{ contents: Buffer; mode: number }> {
  const file = await open(path).catch((error: unknown) => {
    const hints = path === "" ? ["the name of the key file is empty; give one with -k"] : [];
    throw unreadable(`Cannot open file: ${path}: ${systemErrorText(error)}`, ...hints);
  });
  try {
    const status = await file.stat();
    return { contents: await file.readFile(), mode: status.isFile() ? status.mode : 0 };
  } catch (error) {
    const reason = `Error reading file: ${path}: ${systemErrorText(error)}`;
    const isDirectory = (error as NodeJS.ErrnoException).code === "EISDIR";
    throw unreadable(reason, ...(isDirectory ? [ONE_KEY] : []));
  } finally {
    await file.close();
  }
}

async function readStdin(): Promise<Buffer> {
  const chunks: Buffer[] = [];
  try {
    for await (const chunk of process.stdin as AsyncIterable<Buffer>) chunks.push(chunk);
  } catch (error) {
    throw unreadable(`Error reading from stdin: ${systemErrorText(error)}`);
  }
  const whole = Buffer.concat(chunks);
  for (const chunk of chunks) chunk.fill(0);
  return whole;
}

function unreadable(reason: string, ...hints: string[]): ConfigError {
  return new ConfigError([reason, "Error reading shared secret", ...hints]);
}
