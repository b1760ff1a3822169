/** The package as npm installs it. */
import { readdirSync } from "node:fs";
import { join, resolve } from "node:path";
import { expect, it } from "vitest";
import { run, temporaryDirectory } from "../../support/programs.ts";

it("installs working commands and their man pages", { timeout: 60_000 }, async () => {
  const directory = temporaryDirectory();
  const npm = (...args: string[]) => run(["npm", ...args], "", { cwd: directory });
  expect(await npm("pack", "--ignore-scripts", resolve("."))).toMatchObject({ status: 0 });
  const archive = readdirSync(directory).find((name) => name.endsWith(".tgz"))!;
  const installed = await npm("install", "--global", "--prefix", directory, "--prefer-offline", archive);
  expect(installed.status).toBe(0);
  // npm 11 warns about a package with an install script.
  expect(installed.stderr).not.toContain("script");
  for (const program of ["spiped", "spipe"]) {
    const { status, stdout, stderr } = await run([join(directory, "bin", program), "-h"]);
    expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
    expect(stdout.toString()).toContain(`usage: ${program}`);
  }
  expect(readdirSync(join(directory, "share/man/man1")).sort()).toEqual(["spipe.1", "spiped.1"]);
});
