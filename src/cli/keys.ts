/** `spiped keys`: lists, adds, rotates and revokes the keys in a directory. */
import { randomBytes } from "node:crypto";
import { link, open, stat, unlink } from "node:fs/promises";
import { join } from "node:path";
import { Command, CommanderError } from "commander";
import { ConfigError, UsageError } from "../config/config-error.ts";
import {
  clientNameFromFile,
  type DirectoryKey,
  hasWrongSettings,
  type KeyDirectory,
  readKeyDirectory,
} from "../config/key-directory.ts";
import { KEY_BYTES } from "../config/key-file.ts";
import { KEY_COMMANDS, type KeyCommandSpec } from "../config/options.ts";
import { escapeUnprintable, isPrintable } from "../config/printable.ts";
import type { ClientSettings } from "../config/tunnel-settings.ts";
import { writeError } from "../daemon/observe/line-writer.ts";
import { systemErrorText } from "../net/system-error.ts";
import { fingerprint } from "../protocol/fingerprint.ts";
import { Secret } from "../protocol/secret.ts";
import { runProgram } from "./run-program.ts";

const USAGE = Object.entries<KeyCommandSpec>(KEY_COMMANDS)
  .map(([name, { operand }], index) => {
    const start = index === 0 ? "usage:" : "      ";
    return `${start} spiped keys ${name} <directory>${formatOperand(operand)} [--json]\n`;
  })
  .join("");

const HELP = `${USAGE}
${Object.entries(KEY_COMMANDS)
  .map(([name, { help }]) => `  ${name.padEnd(8)} ${help}\n`)
  .join("")}  --json   print one JSON object

The directory is one that spiped -d -k takes. The daemon reads it again on SIGHUP.
`;

const RELOAD = "Send the daemon SIGHUP, or run systemctl reload";

/** Runs `spiped keys` with the arguments that follow these two words. Resolves to the exit status. */
export function keys(argv: readonly string[]): Promise<number> {
  return runProgram("spiped", USAGE, async () => {
    const command = makeCommand();
    try {
      await command.parseAsync(argv, { from: "user" });
    } catch (error) {
      if (!(error instanceof CommanderError)) throw error;
      if (error.exitCode !== 0) throw new UsageError(describeMistake(error));
    }
    return 0;
  });
}

/** Returns the command, which throws CommanderError instead of exiting. */
function makeCommand(): Command {
  const command = configure(new Command("keys")).option("--json");
  for (const [name, { operand }] of Object.entries<KeyCommandSpec>(KEY_COMMANDS)) {
    const subcommand = configure(command.command(name)).argument("<directory>");
    if (operand !== undefined) subcommand.argument(`<${operand.name}>`);
    subcommand.action(async (directory: string, word: string | object) => {
      const isJson = command.opts<{ json?: true }>().json === true;
      await runAction(
        ACTIONS[name as keyof typeof ACTIONS],
        directory,
        operand === undefined ? "" : (word as string),
        isJson,
      );
    });
  }
  return command;
}

function configure(command: Command): Command {
  command.helpInformation = () => HELP;
  return command
    .exitOverride()
    .configureOutput({ writeErr: () => {} })
    .helpCommand(false);
}

/** Returns commander's message without its prefix. */
function describeMistake({ code, message }: CommanderError): string {
  if (code === "commander.help") return "missing command";
  return message.replace(/^error: /, "").replaceAll("\n", " ");
}

async function runAction(action: Action, directory: string, operand: string, isJson: boolean): Promise<void> {
  const found = await readKeyDirectory(directory, { keepGoing: true });
  for (const { kind, message } of found.problems) if (kind === "settings") printError(message);
  const output = await action(directory, found, operand);
  process.stdout.write(isJson ? `${JSON.stringify(output.json, null, 2)}\n` : output.text);
}

function formatOperand(operand: KeyCommandSpec["operand"]): string {
  if (operand === undefined) return "";
  const forms = operand.forms.map((form) => `<${form}>`).join(" | ");
  return operand.forms.length === 1 ? ` ${forms}` : ` {${forms}}`;
}

/** Output of a command. */
interface Output {
  readonly text: string;
  readonly json: object;
}

type Action = (directory: string, found: KeyDirectory, operand: string) => Output | Promise<Output>;

const ACTIONS = { list, show, add, rotate, revoke } satisfies Record<keyof typeof KEY_COMMANDS, Action>;

function list(directory: string, found: KeyDirectory): Output {
  return describe(directory, found, found);
}

/** @throws ConfigError if there is no such client. */
function show(directory: string, found: KeyDirectory, name: string): Output {
  const own = {
    keys: found.keys.filter((key) => key.name === name),
    problems: found.problems.filter(
      ({ file }) => clientNameFromFile(file) === name || file === `${name}.toml`,
    ),
  };
  if (own.keys.length === 0 && own.problems.length === 0) throw noKeyError(name, directory);
  return describe(directory, found, own);
}

/** @throws ConfigError if the client already has a key, or the new key cannot be written. */
async function add(directory: string, found: KeyDirectory, name: string): Promise<Output> {
  checkName(name);
  if (found.clients.has(name)) {
    throw new ConfigError([
      `${name} already has a key in ${directory}`,
      `to add another: spiped keys rotate ${shellWord(directory)} ${shellWord(name)}`,
    ]);
  }
  const file = `${name}.key`;
  const created = await makeKey(directory, file, found);
  if (created === undefined) throw new ConfigError([`${join(directory, file)} exists`]);
  return newKeyOutput(directory, name, file, created, [
    `Copy ${join(directory, file)} to ${name} over a secure channel.`,
    `${RELOAD}: it then accepts the key.`,
  ]);
}

/** @throws ConfigError if the client has no key, or the new key cannot be written. */
async function rotate(directory: string, found: KeyDirectory, name: string): Promise<Output> {
  checkName(name);
  if (!found.clients.has(name)) throw noKeyError(name, directory);
  const day = new Date().toISOString().slice(0, 10);
  let file = `${name}.${day}.key`;
  let created = await makeKey(directory, file, found);
  for (let count = 2; created === undefined; count += 1) {
    file = `${name}.${day}.${count}.key`;
    created = await makeKey(directory, file, found);
  }
  const old = candidates(found).filter((key) => key.name === name);
  return newKeyOutput(directory, name, file, created, [
    `${RELOAD}: it then accepts all keys of ${name}.`,
    `Copy ${join(directory, file)} to ${name} over a secure channel, and switch ${name} to it.`,
    "When the old key is no longer used (the log and metrics show its fingerprint), remove it: " +
      old.map(({ file }) => revokeCommand(directory, file)).join("; "),
  ]);
}

/** @throws ConfigError if no key or several keys match, or if the key cannot be removed. */
async function revoke(directory: string, found: KeyDirectory, operand: string): Promise<Output> {
  const all = candidates(found);
  const matching = [
    all.filter(({ file }) => file === operand),
    all.filter(({ name }) => name === operand),
    all.filter((key) => key.fingerprint === operand),
  ].find((keys) => keys.length > 0);
  if (matching === undefined)
    throw new ConfigError([
      `no key ${operand} in ${directory}: give a client name, file name or fingerprint`,
    ]);
  const [key, ...others] = matching;
  if (key === undefined || others.length > 0) {
    throw new ConfigError([
      `${operand} matches ${matching.length} keys; choose one:`,
      ...matching.map(
        ({ file, fingerprint }) => `${revokeCommand(directory, file)}   (${fingerprint ?? "unusable"})`,
      ),
    ]);
  }
  const { file, name } = key;
  const path = join(directory, file);
  await unlink(path).catch((error: unknown) => {
    throw new ConfigError([`cannot remove ${path}: ${systemErrorText(error)}`]);
  });
  await syncDirectory(directory);
  const next = [`${RELOAD}: it then closes the connections opened with this key.`];
  if (!all.some((other) => other !== key && other.name === name)) {
    next.push(
      `${name} has no keys left. ${name}.toml, if it exists, applies again once ${name} has a key; ` +
        `[tunnels.TUNNEL.keys.${name}] must be removed from a configuration file, or the daemon does not start.`,
    );
  }
  return {
    text: `${path}: removed${key.fingerprint === undefined ? "" : `, fingerprint ${key.fingerprint}`}\n${numbered(next)}`,
    json: { removed: { name, file, fingerprint: key.fingerprint ?? null }, next },
  };
}

/** A file that `revoke` can remove. */
interface Candidate {
  readonly name: string;
  readonly file: string;
  /** Undefined if the key was rejected or could not be read. */
  readonly fingerprint?: string;
}

function candidates({ keys, problems }: KeyDirectory): Candidate[] {
  const broken = problems.filter(({ kind }) => kind === "refused" || kind === "unreadable");
  return [
    ...keys.map(({ name, file, secret }) => ({ name, file, fingerprint: fingerprint(secret) })),
    ...broken.map(({ file }) => ({ name: clientNameFromFile(file)!, file })),
  ];
}

function noKeyError(name: string, directory: string): ConfigError {
  return new ConfigError([`no key of ${name} in ${directory}`]);
}

function revokeCommand(directory: string, file: string): string {
  return `spiped keys revoke ${shellWord(directory)} ${shellWord(file)}`;
}

function checkName(name: string): void {
  if (name === "" || /^-|[./]/.test(name) || !isPrintable(name)) {
    throw new ConfigError([
      `invalid client name ${JSON.stringify(name)}: it must not contain a dot, slash or control character, or begin with a dash`,
    ]);
  }
}

function printError(message: string): void {
  writeError(`spiped: ${escapeUnprintable(message)}\n`);
}

/** Returns keys, restrictions and problems; prints the problems, except those with settings, to standard error. */
function describe(
  directory: string,
  found: KeyDirectory,
  { keys, problems }: Pick<KeyDirectory, "keys" | "problems">,
): Output {
  for (const { kind, message } of problems) if (kind !== "settings") printError(message);
  const rows = keys.map((key) =>
    row(key, hasWrongSettings(found, key.name) ? "wrong" : found.clients.get(key.name)),
  );
  const table = [["NAME", "FINGERPRINT", "AGE", "EXPIRES", "RESTRICTIONS", "FILE"], ...rows];
  const widths = table[0]!.map((_, column) => Math.max(...table.map((cells) => cells[column]!.length)));
  const lines = table.map((cells) =>
    cells
      .map((cell, column) => cell.padEnd(widths[column]!))
      .join("  ")
      .trimEnd(),
  );
  return {
    text: `${lines.join("\n")}\n`,
    json: {
      directory,
      keys: keys.map((key) => toJson(key, found.clients.get(key.name) ?? {})),
      problems: problems.map(({ file, kind, message }) => ({ file, kind, message })),
    },
  };
}

function row(key: DirectoryKey, settings: Partial<ClientSettings> | "wrong" = {}): string[] {
  const common = [key.name, fingerprint(key.secret), formatAge(key.modified)];
  if (settings === "wrong") return [...common, "unknown", "unknown", key.file];
  const { expires, maxConnections, targets } = settings;
  const restrictions = [
    ...(maxConnections === undefined || maxConnections === Number.POSITIVE_INFINITY
      ? []
      : [`max-connections ${maxConnections}`]),
    ...(targets === undefined ? [] : [`target ${targets.join(" ")}`]),
  ];
  return [
    ...common,
    expires === undefined
      ? "never"
      : isPast(expires)
        ? `${formatDate(expires)} (expired)`
        : formatDate(expires),
    escapeUnprintable(restrictions.join(", ")) || "none",
    key.file,
  ];
}

function toJson(key: DirectoryKey, { expires, maxConnections, targets }: Partial<ClientSettings>): object {
  return {
    name: key.name,
    file: key.file,
    fingerprint: fingerprint(key.secret),
    bytes: key.bytes,
    permissions: octal(key.mode),
    modified: key.modified.toISOString(),
    expires: expires === undefined ? null : new Date(expires).toISOString(),
    expired: expires !== undefined && isPast(expires),
    max_connections: maxConnections ?? null,
    target: targets ?? null,
  };
}

function octal(mode: number): string {
  return mode.toString(8).padStart(4, "0");
}

function isPast(date: Date): boolean {
  return date.getTime() <= Date.now();
}

/** Returns a date in UTC, without the time if that is midnight. */
function formatDate(date: Date): string {
  return new Date(date).toISOString().replace("T00:00:00.000Z", "");
}

/** Returns the time since a date, in the largest unit of which at least two have passed. */
function formatAge(date: Date): string {
  const minutes = Math.max(0, Math.floor((Date.now() - date.getTime()) / 60_000));
  if (minutes < 120) return `${minutes} min`;
  return minutes < 48 * 60 ? `${Math.floor(minutes / 60)} hours` : `${Math.floor(minutes / (24 * 60))} days`;
}

/** A new key. */
interface NewKey {
  readonly fingerprint: string;
  /** Steps to change owner and permissions, if the daemon may be unable to read the key. */
  readonly access: readonly string[];
}

function newKeyOutput(
  directory: string,
  name: string,
  file: string,
  created: NewKey,
  steps: string[],
): Output {
  const next = [...created.access, ...steps];
  return {
    text: `${join(directory, file)}: new key of ${KEY_BYTES} bytes, fingerprint ${created.fingerprint}\n${numbered(next)}`,
    json: { added: { name, file, fingerprint: created.fingerprint }, next },
  };
}

function numbered(steps: readonly string[]): string {
  return `Next:\n${steps.map((step, index) => `  ${index + 1}. ${step}\n`).join("")}`;
}

/**
 * Writes a new key atomically: to a temporary file that the daemon does not read, which is then linked to its final
 * name.
 *
 * @returns undefined if a file with this name exists; it is not changed.
 * @throws ConfigError
 */
async function makeKey(directory: string, file: string, found: KeyDirectory): Promise<NewKey | undefined> {
  const path = join(directory, file);
  const temporary = join(directory, `.new-${randomBytes(8).toString("hex")}`);
  const contents = randomBytes(KEY_BYTES);
  const secret = Secret.fromKeyFile(contents);
  try {
    const handle = await open(temporary, "wx", 0o600);
    try {
      await handle.writeFile(contents);
      await handle.sync();
    } finally {
      await handle.close();
    }
    // Unlike rename(), link() fails if a file with this name exists.
    await link(temporary, path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") return undefined;
    throw new ConfigError([`cannot write a key to ${path}: ${systemErrorText(error)}`]);
  } finally {
    contents.fill(0);
    await unlink(temporary).catch(() => {});
  }
  await syncDirectory(directory);
  const print = fingerprint(secret);
  secret.destroy();
  return { fingerprint: print, access: await accessAdvice(directory, path, found.keys[0]) };
}

/** Syncs a directory's entries to disk, if the file system supports it. */
async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory);
  await handle.sync().catch(() => {});
  await handle.close();
}

/**
 * Returns what to do if the daemon's user may be unable to read a new key: its owner or permissions differ from those
 * of another key, or of the directory if it is the first key.
 */
async function accessAdvice(
  directory: string,
  path: string,
  other: DirectoryKey | undefined,
): Promise<string[]> {
  const model = other === undefined ? directory : join(directory, other.file);
  const [own, { uid, gid, mode }] = await Promise.all([stat(path), stat(model)]);
  const groupReads = other === undefined ? gid !== own.gid && (mode & 0o010) !== 0 : (mode & 0o040) !== 0;
  const commands: string[] = [];
  if (uid !== own.uid || (groupReads && gid !== own.gid))
    commands.push(`chown ${uid}:${gid} ${shellWord(path)}`);
  if (groupReads) commands.push(`chmod 0640 ${shellWord(path)}`);
  if (commands.length === 0) return [];
  return [
    `Only user ${own.uid} can read ${path}, unlike ${model}. If the daemon runs as another user: ${commands.join(" && ")}`,
  ];
}

/** Quotes a word for a shell if necessary. */
function shellWord(text: string): string {
  return /^[\w@%+:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}
