/** What the programs load at start, which is most of the time until the first byte. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { commandOf, run, temporaryDirectory } from "../../support/programs.ts";

/** Built-in modules that a connection to an IP address, with a key in a file, does not need. */
const UNNEEDED = ["fs/promises", "dns/promises", "worker_threads", "http", "child_process", "inspector"];

describe("spipe", () => {
  it("loads neither a dependency nor a built-in module that its connection does not need", async () => {
    const preload = join(temporaryDirectory(), "report-loaded.cjs");
    writeFileSync(
      preload,
      `const { builtinModules } = require("node:module");
       const before = new Set(process.moduleLoadList);
       process.on("exit", () => {
         const builtIns = builtinModules.filter((name) => {
           const entry = "NativeModule " + name;
           return process.moduleLoadList.includes(entry) && !before.has(entry);
         });
         const files = Object.keys(require.cache).filter((file) => !file.startsWith(__dirname));
         console.log(JSON.stringify({ builtIns, files }));
       });`,
    );
    const key = join(temporaryDirectory(), "key");
    writeFileSync(key, Buffer.alloc(32, 7), { mode: 0o600 });
    const [node, program] = commandOf("ours", "spipe") as readonly [string, string];
    const { status, stdout } = await run([
      node,
      "--require",
      preload,
      program,
      "-t",
      "[127.0.0.1]:1",
      "-k",
      key,
    ]);
    expect(status).toBe(1);
    const { builtIns, files } = JSON.parse(stdout.toString()) as { builtIns: string[]; files: string[] };
    expect(builtIns.filter((name) => UNNEEDED.includes(name))).toEqual([]);
    expect(files).toEqual([program]);
  });
});
