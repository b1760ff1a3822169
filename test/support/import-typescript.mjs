/** Loads a TypeScript module of this repository outside the test runner, with everything that it imports. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { build } from "esbuild";

const root = fileURLToPath(new URL("../..", import.meta.url));

/**
 * Bundles and imports a module.
 *
 * @param path - from the root of the repository.
 * @returns the module, and the URL under which V8 knows its script.
 */
export async function importTypeScript(path) {
  const directory = mkdtempSync(join(tmpdir(), "spiped-bundle-"));
  const outfile = join(directory, "bundle.mjs");
  try {
    await build({
      entryPoints: [join(root, path)],
      bundle: true,
      platform: "node",
      format: "esm",
      outfile,
      packages: "bundle",
      // For dependencies that are CommonJS.
      banner: {
        js: 'import { createRequire } from "node:module"; const require = createRequire(import.meta.url);',
      },
    });
    const { href: url } = pathToFileURL(outfile);
    return { url, module: await import(url) };
  } finally {
    rmSync(directory, { recursive: true });
  }
}
