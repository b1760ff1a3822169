/** Builds the programs once before the tests, which run the built ones, unless dist/ is what the sources give. */
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import type { TestProject } from "vitest/node";

/** What the contents of dist/ depend on. The lock file stands for the versions of the tools. */
const SOURCES = ["src", "bin", "package.json", "package-lock.json", "tsconfig.json", "tsup.config.ts"];
const BUILT = ["dist"];

/** The hashes of SOURCES and BUILT after the last build. */
const RECORD = "node_modules/.cache/spiped/built.json";

export function setup(project: TestProject): void {
  build();
  project.onTestsRerun(build);
}

function build(): void {
  const sources = hashOf(SOURCES);
  if (readRecord() === JSON.stringify({ sources, built: hashOf(BUILT) })) return;
  for (const directory of BUILT) rmSync(directory, { recursive: true, force: true });
  execFileSync(process.execPath, ["node_modules/tsup/dist/cli-default.js", "--silent"], { stdio: "inherit" });
  mkdirSync(dirname(RECORD), { recursive: true });
  writeFileSync(RECORD, JSON.stringify({ sources, built: hashOf(BUILT) }));
}

function readRecord(): string | undefined {
  try {
    return readFileSync(RECORD, "utf8");
  } catch {
    return undefined;
  }
}

/** Returns a hash of the names and contents of files and of all files in directories. */
function hashOf(paths: readonly string[]): string {
  const hash = createHash("sha256");
  for (const file of paths.flatMap(filesOf).sort()) {
    const contents = readFileSync(file);
    hash.update(`${file}\0${contents.length}\0`).update(contents);
  }
  return hash.digest("hex");
}

function filesOf(path: string): string[] {
  const stats = statSync(path, { throwIfNoEntry: false });
  if (stats === undefined) return [];
  if (!stats.isDirectory()) return [path];
  return readdirSync(path).flatMap((name) => filesOf(join(path, name)));
}
