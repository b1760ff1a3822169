#!/usr/bin/env node
/** Checks programs that speak the spiped protocol, from outside. Usage: see below. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { Failure, setLimit, Timeout, within } from "./lib/channel.mjs";
import { daemonChecks, keyFileCheck, PAIR_CHECK, pipeChecks } from "./lib/checks.mjs";
import { ClientUnderTest, PairUnderTest, PipeUnderTest, ServerUnderTest } from "./lib/programs.mjs";
import { isPlayable, KEY_FILE, keyFiles, packets } from "./lib/vectors.mjs";

const USAGE = `usage: spiped-vectors [--spiped COMMAND] [--spipe COMMAND]
                      [--only TEXT] [--timeout SECONDS]

Checks a spiped, a spipe or both with the vectors of this package, over loopback.
A command is a program and its first arguments, separated by spaces, such as
"node dist/spiped.js"; the options of spiped(1) and spipe(1) are appended.

  --only TEXT         run only the checks whose line contains TEXT
  --timeout SECONDS   limit on each wait (default 10)

Prints a line for each check, and exits with 0 if none failed, with 1 if one
did or none was run, and with 2 if the arguments are wrong.
`;

/** A check that takes as long as this many waits has failed. */
const MAX_WAITS = 6;
/** After so many checks that waited in vain, the others would, too. */
const MAX_TIMEOUTS = 15;

function readArguments() {
  try {
    const { values } = parseArgs({
      options: {
        spiped: { type: "string" },
        spipe: { type: "string" },
        only: { type: "string", default: "" },
        timeout: { type: "string", default: "10" },
        help: { type: "boolean", short: "h" },
      },
    });
    if (values.help) {
      process.stdout.write(USAGE);
      process.exit(0);
    }
    const split = (text) => text?.split(" ").filter(Boolean);
    const commands = { spiped: split(values.spiped), spipe: split(values.spipe) };
    const given = Object.values(commands).filter((command) => command !== undefined);
    const seconds = Number(values.timeout);
    if (!(seconds > 0 && seconds <= 3600))
      throw new Error(`--timeout must be a number of seconds, not ${values.timeout}`);
    if (given.length > 0 && given.every((command) => command.length > 0))
      return { ...commands, only: values.only, seconds };
  } catch (error) {
    process.stderr.write(`spiped-vectors: ${error.message}\n`);
  }
  process.stderr.write(USAGE);
  process.exit(2);
}

const { spiped, spipe, only, seconds } = readArguments();
setLimit(seconds * 1000);
const directory = mkdtempSync(join(tmpdir(), "spiped-vectors-"));
process.on("exit", () => rmSync(directory, { recursive: true, force: true }));
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => process.exit(1));

function writeKey(name, contents) {
  const path = join(directory, name);
  writeFileSync(path, contents, { mode: 0o600 });
  return path;
}
const key = writeKey("key", KEY_FILE);

let passed = 0;
const failed = [];
let timeouts = 0;
/** Differences that the protocol allows, with the number of checks that showed them. */
const notes = new Map();

/** Runs one check. */
async function check(name, rig, run) {
  const noted = new Set();
  try {
    await within(
      run(rig, (text) => noted.add(text)),
      "result",
      MAX_WAITS * seconds * 1000,
    );
    await rig.settle();
    passed += 1;
    console.log(`ok    ${name}${noted.size === 0 ? "" : ` (${[...noted].join("; ")})`}`);
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    if (error instanceof Timeout) timeouts += 1;
    failed.push(name);
    console.log(`FAIL  ${name}: ${error.message}`);
    await rig.settle().catch(() => {});
  }
  for (const text of noted) notes.set(text, (notes.get(text) ?? 0) + 1);
  if (timeouts >= MAX_TIMEOUTS) {
    console.log(`${timeouts} checks waited in vain; the others are not run`);
    report();
  }
}

/** Starts what is under test, runs its checks and stops it. */
async function group(title, rig, all) {
  const checks = all.map(([name, run]) => [`${title}: ${name}`, run]).filter(([name]) => name.includes(only));
  if (checks.length === 0) return;
  try {
    await rig.start();
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    failed.push(title);
    console.log(`FAIL  ${title}: ${error.message.trim()}`);
    await rig.stop();
    return;
  }
  for (const [name, run] of checks) await check(name, rig, run);
  await rig.stop();
}

function report() {
  console.log(`\n${passed} checks passed, ${failed.length} failed`);
  for (const [text, count] of notes) console.log(`allowed difference, in ${count} checks: ${text}`);
  console.log(
    `${packets.filter((vector) => !isPlayable(vector)).length} cases of packets.json begin at a later packet and need a test inside the program`,
  );
  process.exit(failed.length === 0 && passed > 0 ? 0 : 1);
}

const titled = (program, options) => [program, ...options].join(" ");

if (spiped !== undefined) {
  for (const { options, checks } of daemonChecks("server"))
    await group(titled("spiped -d", options), new ServerUnderTest(spiped, key, options), checks);
  for (const { options, checks } of daemonChecks("client"))
    await group(titled("spiped -e", options), new ClientUnderTest(spiped, key, options), checks);
  for (const [options, serverOptions] of [
    [[], []],
    [["-f"], []],
    [[], ["-f"]],
    [["-g"], ["-g"]],
  ]) {
    const title = `${titled("spiped -e", options)} with ${titled("spiped -d", serverOptions)}`;
    const pair = new PairUnderTest(spiped, spiped, key, { isPipe: false, options, serverOptions });
    await group(title, pair, [PAIR_CHECK]);
  }
}
if (spipe !== undefined) {
  for (const { options, checks } of pipeChecks())
    await group(titled("spipe", options), new PipeUnderTest(spipe, key, options), checks);
  for (const [i, vector] of keyFiles.entries()) {
    const contents = Buffer.from(vector.contents.repeat(vector.repeat), "hex");
    await group("spipe", new PipeUnderTest(spipe, writeKey(`key-${i}`, contents)), [keyFileCheck(vector)]);
  }
}
if (spiped !== undefined && spipe !== undefined) {
  const pair = new PairUnderTest(spiped, spipe, key, { isPipe: true });
  await group("spipe with spiped -d", pair, [PAIR_CHECK]);
}
report();
