/** Writes the files that are generated from the option table. A unit test checks that they are up to date. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { build } from "esbuild";

const directory = mkdtempSync("node_modules/.generate-");
const outfile = join(directory, "files.mjs");
try {
  await build({
    entryPoints: ["scripts/generate/files.ts"],
    bundle: true,
    packages: "external",
    platform: "node",
    format: "esm",
    outfile,
  });
  const { generateFiles } = await import(pathToFileURL(outfile).href);
  for (const { path, contents } of generateFiles()) writeFileSync(path, contents);
} finally {
  rmSync(directory, { recursive: true });
}
