/** Bundles and runs the simulation. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { build } from "esbuild";

const directory = mkdtempSync(join(tmpdir(), "spiped-simulation-"));
const bundle = join(directory, "run.mjs");
await build({
  entryPoints: [fileURLToPath(new URL("run.ts", import.meta.url))],
  bundle: true,
  platform: "node",
  format: "esm",
  outfile: bundle,
  sourcemap: "inline",
});
process.setSourceMapsEnabled(true);
await import(pathToFileURL(bundle).href);
rmSync(directory, { recursive: true });
