/**
 * Runs the checks of the formal model, as many at a time as there are processors, and compares the results with what
 * checks.maude expects. Exits with 1 if one differs. README.md describes the model.
 *
 *     node model/run.mjs [NAME...]      runs all checks, or those with these names
 */
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { fileURLToPath } from "node:url";

const DIRECTORY = fileURLToPath(new URL(".", import.meta.url));
const TIMEOUT_MS = 300_000;

/** What a check can expect, and whether its search must find a state. */
const EXPECTATIONS = { holds: false, attack: true, reached: true };

const CHECK = /^\*\*\* \[(?<expected>\w+)\] (?<name>[\w-]+): (?<claim>.+)\n(?<search>search [^]+? \.)$/gm;

function readChecks() {
  const text = readFileSync(`${DIRECTORY}checks.maude`, "utf8");
  const checks = [...text.matchAll(CHECK)].map(({ groups }) => groups);
  const searches = text.match(/^search /gm).length;
  if (checks.length !== searches)
    throw new Error(`${searches} searches, ${checks.length} of them with a name`);
  if (new Set(checks.map(({ name }) => name)).size !== searches)
    throw new Error("two checks have the same name");
  for (const { name, expected } of checks) {
    if (!(expected in EXPECTATIONS)) throw new Error(`${name}: unknown expectation: ${expected}`);
  }
  return checks;
}

/** Runs commands in a process of their own; resolves to what Maude prints. */
function runMaude(...commands) {
  return new Promise((resolve, reject) => {
    const child = spawn("maude", ["-no-banner", "-batch", "-no-wrap", "properties.maude"], {
      cwd: DIRECTORY,
      // Maude looks for files in the directory that this variable names.
      env: { ...process.env, PWD: DIRECTORY },
      timeout: TIMEOUT_MS,
      killSignal: "SIGKILL",
    });
    let output = "";
    child.stdout.setEncoding("utf8").on("data", (text) => (output += text));
    child.stderr.setEncoding("utf8").on("data", (text) => (output += text));
    child.stdin.on("error", () => {});
    child.on("error", reject);
    child.on("close", () => resolve(output));
    child.stdin.end(`${commands.join("\n")}\n`);
  });
}

async function runCheck({ expected, search }) {
  const output = await runMaude(search);
  const found = /^Solution 1 \(state (\d+)\)$/m.exec(output)?.[1];
  const complete = /^No solution\.$/m.test(output);
  const states = /^states: (\d+)/m.exec(output)?.[1];
  // After a warning, Maude goes on with something else than what the files say.
  if (/^(?:Warning|Advisory|Error)/m.test(output) || (found === undefined) !== complete) {
    return { ok: false, result: "no result from Maude", details: output.trim() };
  }
  const ok = (found !== undefined) === EXPECTATIONS[expected];
  if (found === undefined) return { ok, result: `none in ${states} states` };
  const path = await runMaude(search, `show path labels ${found} .`);
  const steps = path.match(/^[a-z]+(?:-[a-z]+)*$/gm);
  return { ok, result: `found in ${states} states`, details: steps?.join(", ") };
}

const checks = readChecks();
const names = process.argv.slice(2);
const unknown = names.find((name) => !checks.some((check) => check.name === name));
if (unknown !== undefined) {
  console.error(`no such check: ${unknown}`);
  process.exit(2);
}

const queue = checks.filter(({ name }) => names.length === 0 || names.includes(name));
const total = queue.length;
let met = 0;

async function work() {
  for (let check = queue.shift(); check !== undefined; check = queue.shift()) {
    const { ok, result, details } = await runCheck(check);
    if (ok) met += 1;
    console.log(`${ok ? "ok" : "FAILED"} [${check.expected}] ${check.name}: ${check.claim}`);
    console.log(`     ${result}${details === undefined ? "" : `: ${details}`}`);
  }
}

try {
  await Promise.all(Array.from({ length: availableParallelism() }, work));
} catch (error) {
  if (error.code !== "ENOENT") throw error;
  console.error("maude is not installed; on Debian and Ubuntu: apt-get install maude");
  process.exit(1);
}
console.log(`${met} of ${total} checks gave the expected result`);
process.exitCode = met === total ? 0 : 1;
