/** The layers of src/: modules import only from lower layers, and the protocol does no I/O. */
import { readdirSync, readFileSync } from "node:fs";
import { basename, dirname, join, relative } from "node:path";
import { describe, expect, it } from "vitest";

/** Directories that each directory of src/ may import from, in addition to itself. */
const BELOW: Record<string, readonly string[]> = {
  "errors.ts": [],
  protocol: ["errors.ts"],
  net: ["errors.ts"],
  tunnel: ["net", "protocol", "errors.ts"],
  config: ["net", "protocol", "errors.ts"],
  library: ["config", "tunnel", "net", "protocol", "errors.ts"],
  daemon: ["config", "tunnel", "net", "protocol", "errors.ts"],
  cli: ["daemon", "config", "tunnel", "net", "protocol", "errors.ts"],
  "index.ts": ["library", "tunnel", "net", "protocol", "errors.ts"],
};

/** Node modules that the protocol may import: no I/O, timers or clocks. */
const PURE = ["node:crypto", "node:buffer", "node:worker_threads", "node:v8"];

const files = readdirSync("src", { recursive: true, encoding: "utf8" }).filter((name) =>
  name.endsWith(".ts"),
);

function importsOf(file: string): string[] {
  const source = readFileSync(join("src", file), "utf8");
  return [...source.matchAll(/^(?:import|export)\b[^;]*?from "([^"]+)"|\bimport\("([^"]+)"\)/gm)].map(
    (match) => match[1] ?? match[2]!,
  );
}

describe("the layers", () => {
  it("have no two files of the same name", () => {
    const names = files.map((file) => basename(file));
    expect(names.filter((name, index) => names.indexOf(name) !== index)).toEqual([]);
  });

  it.each(files)("%s imports only from lower layers", (file) => {
    const layer = file.split("/")[0]!;
    for (const name of importsOf(file)) {
      if (!name.startsWith(".")) continue;
      const target = relative("src", join("src", dirname(file), name)).split("/")[0]!;
      if (target === "..") continue;
      expect([layer, ...BELOW[layer]!], `${file} imports ${name}`).toContain(target);
    }
  });

  it.each(files.filter((file) => file.startsWith("protocol/")))("%s does no I/O", (file) => {
    for (const name of importsOf(file).filter((name) => name.startsWith("node:")))
      expect(PURE).toContain(name);
    const source = readFileSync(join("src", file), "utf8").replace(/\/\*[\s\S]*?\*\/|\/\/.*/g, "");
    expect(source).not.toMatch(/\b(setTimeout|setInterval|Date\.now|performance\.now|process\.std|fetch)\b/);
  });
});
