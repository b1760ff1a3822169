/**
 * Coverage of the whole test suite: of the code that tests import, which vitest measures, and of the programs that they
 * start, which write what V8 saw when they end. Both are mapped to src/ by the same library and added up.
 *
 * Ends with status 1 below 95 % of branches in src/protocol or 90 % of the whole, or if a test fails. Arguments go to
 * vitest.
 */
import { spawnSync } from "node:child_process";
import { chmodSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { mergeProcessCovs } from "@bcoe/v8-coverage";
import { parse } from "acorn";
import { convert } from "ast-v8-to-istanbul";
import coverage from "istanbul-lib-coverage";
import reports from "istanbul-lib-report";
import { create } from "istanbul-reports";

const GOALS = [
  ["src/protocol", "branches", 95],
  ["src", "branches", 90],
  ["src", "statements", 90],
];
const root = fileURLToPath(new URL("..", import.meta.url));
const written = mkdtempSync(join(tmpdir(), "spiped-coverage-"));
// Some programs run as other users.
chmodSync(written, 0o777);

const tests = spawnSync("npx", ["vitest", "run", "--coverage", ...process.argv.slice(2)], {
  cwd: root,
  stdio: "inherit",
  env: { ...process.env, PROGRAM_COVERAGE: written },
});

/** What the programs ran of their bundles, by bundle. */
const bundles = new Map();
for (const file of readdirSync(written)) {
  const { result } = JSON.parse(readFileSync(join(written, file), "utf8"));
  for (const script of result) {
    if (!script.url.startsWith(`file://${root}dist/`) || !existsSync(fileURLToPath(script.url))) continue;
    bundles.set(script.url, [...(bundles.get(script.url) ?? []), { result: [script] }]);
  }
}
rmSync(written, { recursive: true });

const map = coverage.createCoverageMap(
  JSON.parse(readFileSync(join(root, "coverage/coverage-final.json"), "utf8")),
);
for (const [url, covs] of bundles) {
  const file = fileURLToPath(url);
  const code = readFileSync(file, "utf8");
  const commonjs = file.endsWith(".cjs");
  const converted = await convert({
    ast: parse(code, {
      ecmaVersion: "latest",
      sourceType: commonjs ? "commonjs" : "module",
      allowHashBang: true,
    }),
    code,
    sourceMap: JSON.parse(readFileSync(`${file}.map`, "utf8")),
    coverage: mergeProcessCovs(covs).result[0],
  });
  for (const [source, data] of Object.entries(converted)) {
    // As JSON, like vitest's: a column of infinity, the end of a line, is null there, and the two must be equal.
    if (source.startsWith(join(root, "src/"))) map.merge(JSON.parse(JSON.stringify({ [source]: data })));
  }
}

const context = reports.createContext({ dir: join(root, "coverage"), coverageMap: map });
for (const kind of ["text", "json-summary"]) create(kind).execute(context);

let status = tests.status ?? 1;
for (const [directory, what, goal] of GOALS) {
  const summary = coverage.createCoverageSummary();
  for (const file of map.files()) {
    if (file.startsWith(join(root, directory, "/"))) summary.merge(map.fileCoverageFor(file).toSummary());
  }
  const { pct } = summary[what];
  console.log(`${directory}: ${pct} % of ${what}, goal: at least ${goal} %`);
  if (pct < goal) status = 1;
}
process.exit(status);
