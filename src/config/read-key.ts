/** Reads the key file of a tunnel or of `spipe` (`-k`). */
import { closeSync, fstatSync, openSync, readFileSync, statSync } from "node:fs";
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
  let isOpen = false;
  const onOpen = () => {
    isOpen = true;
  };
  try {
    // Starting a thread for a regular file would take longer than reading it. Any other file, such as a named pipe, may
    // block.
    return await (statSync(path).isFile() ? readRegularFile(path, onOpen) : readSpecialFile(path, onOpen));
  } catch (error) {
    if (!isOpen) {
      const hints = path === "" ? ["the name of the key file is empty; give one with -k"] : [];
      throw unreadable(`Cannot open file: ${path}: ${systemErrorText(error)}`, ...hints);
    }
    const reason = `Error reading file: ${path}: ${systemErrorText(error)}`;
    const isDirectory = (error as NodeJS.ErrnoException).code === "EISDIR";
    throw unreadable(reason, ...(isDirectory ? [ONE_KEY] : []));
  }
}

function readRegularFile(path: string, onOpen: () => void): { contents: Buffer; mode: number } {
  const fd = openSync(path, "r");
  onOpen();
  try {
    return { contents: readFileSync(fd), mode: fstatSync(fd).mode };
  } finally {
    closeSync(fd);
  }
}

async function readSpecialFile(
  path: string,
  onOpen: () => void,
): Promise<{ contents: Buffer; mode: number }> {
  const { open } = await import("node:fs/promises");
  const file = await open(path);
  onOpen();
  try {
    return { contents: await file.readFile(), mode: 0 };
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
