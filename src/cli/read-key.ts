/** Reading the key file named on the command line (`-k`). */
import { open } from "node:fs/promises";
import { Secret } from "../protocol/secret.ts";
import { systemErrorText } from "../tunnel/system-error.ts";
import { CommandError } from "./command-error.ts";

const ONE_KEY = "Who connects holds one key: -k takes a directory of keys with spiped -d only";

/**
 * Reads a key file whole; `-` is standard input, read to its end.
 *
 * @param warn told if everyone can read the file.
 * @throws CommandError with the original's lines.
 */
export async function readKey(path: string, warn: (message: string) => void): Promise<Secret> {
  const contents = path === "-" ? await readStdin() : await readWhole(path, warn);
  const secret = Secret.fromKeyFile(contents);
  contents.fill(0);
  return secret;
}

async function readWhole(path: string, warn: (message: string) => void): Promise<Buffer> {
  const file = await open(path).catch((error: Error) => {
    throw unreadable(`Cannot open file: ${path}: ${systemErrorText(error)}`);
  });
  try {
    const status = await file.stat();
    if (status.isFile() && (status.mode & 0o004) !== 0) {
      warn(`Everyone on this machine can read the key in ${path}: run chmod 600 ${path}`);
    }
    return await file.readFile();
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
    for await (const chunk of process.stdin) chunks.push(chunk);
  } catch (error) {
    throw unreadable(`Error reading from stdin: ${systemErrorText(error)}`);
  }
  const whole = Buffer.concat(chunks);
  for (const chunk of chunks) chunk.fill(0);
  return whole;
}

function unreadable(reason: string, ...hints: string[]): CommandError {
  return new CommandError(reason, "Error reading shared secret", ...hints);
}
