/**
 * A directory of keys. The input is a list of files: each begins with two bytes, for its kind and the length of its
 * name, then come the name and a byte for the length of the contents, and the contents.
 *
 * Each file is a key, the settings of a client, or reported as a problem; none is left out silently. An error is one of
 * our class, and with `keepGoing` there is none.
 */
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ConfigError } from "../../../src/config/config-error.ts";
import {
  clientNameFromFile,
  type KeyDirectory,
  readKeyDirectory,
} from "../../../src/config/key-directory.ts";
import { MIN_KEY_BYTES } from "../../../src/config/key-file.ts";
import { isPrintable } from "../../../src/config/printable.ts";
import { readKeys } from "../../../src/config/read-keys.ts";
import { check, type FuzzTarget } from "../target.ts";

const KINDS = ["file", "world-readable file", "directory", "link to nothing", "link to a file"] as const;

interface Entry {
  readonly kind: (typeof KINDS)[number];
  readonly name: Buffer;
  readonly contents: Buffer;
}

/** Maximum number of files. */
const MAX_FILES = 12;

function* decode(input: Buffer): Generator<Entry> {
  let at = 0;
  const take = (length: number) => {
    const taken = input.subarray(at, at + length);
    at += length;
    return taken;
  };
  for (let files = 0; files < MAX_FILES && at < input.length; files += 1) {
    const [kind = 0, length = 0] = take(2);
    const name = take(length % 40).filter((byte) => byte !== 0 && byte !== 0x2f);
    const [size = 0] = take(1);
    const contents = Buffer.from(take(size));
    if (name.length === 0 || [".", ".."].includes(Buffer.from(name).toString())) continue;
    yield { kind: KINDS[kind % KINDS.length]!, name: Buffer.from(name), contents };
  }
}

function encode(...entries: (readonly [kind: number, name: string, contents: string])[]): Buffer {
  return Buffer.concat(
    entries.flatMap(([kind, name, contents]) => [
      Buffer.from([kind, Buffer.byteLength(name)]),
      Buffer.from(name),
      Buffer.from([Buffer.byteLength(contents)]),
      Buffer.from(contents),
    ]),
  );
}

const KEY = "0123456789abcdef0123456789abcdef";

/** Creates the files; names that the system cannot have are left out. */
function create(directory: string, { kind, name, contents }: Entry): void {
  const path = Buffer.concat([Buffer.from(`${directory}/`), name]);
  try {
    if (kind === "directory") mkdirSync(path);
    else if (kind === "link to nothing") symlinkSync("missing", path);
    else if (kind === "link to a file") symlinkSync("/etc/hostname", path);
    else writeFileSync(path, contents, { mode: kind === "file" ? 0o600 : 0o644 });
  } catch (error) {
    // Two files have the same name.
    if (!["EEXIST", "EISDIR", "ENOENT"].includes((error as NodeJS.ErrnoException).code!)) throw error;
  }
}

function checkContents({ keys, clients, problems }: KeyDirectory, files: readonly string[]): void {
  for (const { name, file, bytes } of keys) {
    check(bytes >= MIN_KEY_BYTES, "a key is too short", bytes);
    check(name === file.slice(0, file.indexOf(".")) && name !== "", "a key has another name", { name, file });
    check(isPrintable(file), "the name of a key cannot be printed", file);
    check(clients.has(name), "a key has no client", name);
  }
  const sorted = keys.map(({ file }) => file).sort();
  check(JSON.stringify(sorted) === JSON.stringify(keys.map(({ file }) => file)), "the keys are not sorted");
  for (const { message } of problems) check(message.length > 10, "a problem says nothing", message);
  const used = new Set([...keys, ...problems].map(({ file }) => file));
  for (const file of files) {
    if (file.startsWith(".") || used.has(file)) continue;
    const isSettings = file.endsWith(".toml") && clients.has(file.slice(0, -".toml".length));
    check(isSettings, "a file is left out silently", file);
  }
}

export function makeTarget(): FuzzTarget {
  const parent = mkdtempSync(join(tmpdir(), "spiped-fuzz-"));
  let count = 0;
  return {
    seeds: [
      encode(
        [0, "alice.key", KEY],
        [0, "alice.2027.key", `${KEY}2`],
        [0, "alice.toml", "max-connections = 2\n"],
      ),
      encode(
        [0, "bob.key", "short"],
        [1, "carol.key", KEY],
        [0, "README.txt", "no key"],
        [0, ".hidden", KEY],
      ),
      encode(
        [2, "dave.key", ""],
        [3, "eve.key", ""],
        [4, "frank.key", ""],
        [0, "gina.toml", "x"],
        [0, "gina.key", KEY],
      ),
      encode(
        [0, "alice.toml", "max-connections = 2\n"],
        [0, "bob.x.toml", ""],
        [0, "a\n.key", KEY],
        [3, "x.toml", ""],
      ),
      encode([2, "h.toml", ""], [0, "h.key", KEY], [0, "constructor.key", KEY], [0, "\u202e.key", KEY]),
      Buffer.concat([
        encode([0, "i.key", KEY]),
        Buffer.from([0, 5, 0xff, 0x2e, 0x6b, 0x65, 0x79, 3, 1, 2, 3]),
      ]),
    ],
    words: [
      ".key",
      ".toml",
      KEY,
      "alice",
      "max-connections = ",
      "target = ",
      "expires = ",
      "\0\x09",
      "__proto__",
    ],
    async run(input) {
      count += 1;
      const directory = join(parent, String(count));
      mkdirSync(directory);
      try {
        const entries = [...decode(input)];
        for (const entry of entries) create(directory, entry);
        // A link to nothing is a file that was deleted meanwhile.
        const files = entries
          .filter(
            ({ kind, name }) =>
              kind !== "link to nothing" || clientNameFromFile(name.toString()) === undefined,
          )
          .map(({ name }) => name.toString());
        const all = await readKeyDirectory(directory, { keepGoing: true });
        checkContents(all, files);
        await checkStrict(directory, all, files);
      } finally {
        rmSync(directory, { recursive: true });
      }
    },
    close: () => rmSync(parent, { recursive: true }),
  };
}

/** Checks reading as a daemon does when it starts. */
async function checkStrict(directory: string, all: KeyDirectory, files: readonly string[]): Promise<void> {
  const reports: string[] = [];
  const report = (message: string) => void reports.push(message);
  const isWrong = all.problems.some(({ kind }) => kind === "settings");
  try {
    checkContents(await readKeyDirectory(directory), files);
    const { keys } = await readKeys(directory, { warn: report, refuse: report, ignore: report }, undefined);
    check(!isWrong, "wrong settings are accepted");
    check(keys.length === all.keys.length, "a daemon has other keys", { keys: keys.length });
    check(reports.length === all.problems.length, "a daemon reports other problems", reports);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    check(isWrong || all.keys.length === 0, "a usable directory is rejected", error.lines);
  }
}
