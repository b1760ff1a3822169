/** Reading the key file named on the command line (`-k`). */
import { open } from "node:fs/promises";
import { Secret } from "../protocol/secret.ts";
import { systemErrorText } from "../tunnel/system-error.ts";
import { CommandError } from "./command-error.ts";

/**
 * Reads a key file whole; `-` is standard input, read to its end.
 *
 * @throws CommandError with the original's lines.
 */
export async function readKey(path: string): Promise<Secret> {
  const contents = path === "-" ? await readStdin() : await readWhole(path);
  const secret = Secret.fromKeyFile(contents);
  contents.fill(0);
  return secret;
}

async function readWhole(path: string): Promise<Buffer> {
  const file = await open(path).catch((error: Error) => {
    throw unreadable(`Cannot open file: ${path}: ${systemErrorText(error)}`);
  });
  try {
    return await file.readFile();
  } catch (error) {
    throw unreadable(`Error reading file: ${path}: ${systemErrorText(error)}`);
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

function unreadable(reason: string): CommandError {
  return new CommandError(reason, "Error reading shared secret");
}
