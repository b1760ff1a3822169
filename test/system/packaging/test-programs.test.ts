/** Tests that are skipped because programs are missing, and the installation of these programs by `npm test`. */
import { readFileSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { describe, expect, it } from "vitest";
import packages from "../../support/debian-packages.json" with { type: "json" };
import { run, temporaryDirectory } from "../../support/programs.ts";
import { describeIfInstalled } from "../../support/requirements.ts";

const NAMES = [...new Set(Object.values(packages))].sort();
const INSTALL = resolve("scripts/install-test-programs.mjs");

describe("tests whose programs are missing", () => {
  it("are skipped, and the end of the run reports what to install", async () => {
    const config = join(temporaryDirectory(), "vitest.config.mjs");
    const test = {
      include: ["test/system/cli/completions.test.ts"],
      reporters: ["default", resolve("test/support/closing-reporter.ts")],
    };
    writeFileSync(config, `export default ${JSON.stringify({ root: resolve("."), test })};`);
    const vitest = [process.execPath, "node_modules/vitest/vitest.mjs", "run", "--config", config];
    const { status, stdout } = await run(vitest, "", { env: { PATH: "/nowhere", CI: "true" } });
    const lines = stdout.toString().trimEnd().split("\n");
    expect(status, stdout.toString()).toBe(0);
    expect(lines.at(-1)).toMatch(/^0 passed, 0 failed, [1-9]\d* skipped$/);
    expect(lines.find((line) => line.includes("not installed"))).toMatch(/: (.*, )?fish, (.*, )?zsh$/);
    const command = lines.find((line) => line.includes("apt-get install"))!;
    expect(command).toMatch(/ --no-install-recommends (.* )?fish (.* )?zsh$/);
  });
});

/** Runs the installation in its own mount namespace, with an apt-get that records its arguments. */
async function install(aptGet: string | undefined) {
  const directory = temporaryDirectory();
  const done = join(directory, "done");
  const program = (name: string, script: string) =>
    writeFileSync(join(directory, name), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
  program("dpkg-query", "exit 1");
  program("systemctl", `echo "systemctl $*" >> ${done}`);
  if (aptGet !== undefined) program("apt-get", aptGet.replaceAll("DONE", done));
  writeFileSync(done, "");
  const script = `mount -t tmpfs none /usr/sbin && PATH=${directory} && '${process.execPath}' '${INSTALL}' && echo $(echo /usr/sbin/*)`;
  const { status, stdout } = await run(["unshare", "--mount", "/bin/sh", "-c", script]);
  return { status, stdout: stdout.toString(), done: readFileSync(done, "utf8").split("\n").slice(0, -1) };
}

const RECORD = `[ "$1" = --version ] && exit; echo "$*: $(/usr/sbin/policy-rc.d; echo $?)" >> DONE`;

describeIfInstalled("root", "unshare")("the installation of test programs", () => {
  it("lists the packages once, installs them, starts no service now or at boot, and cleans up", async () => {
    const { status, stdout, done } = await install(RECORD);
    expect(status).toBe(0);
    const list = NAMES.join(" ");
    expect(stdout).toBe(`Installing packages that the tests need: ${list}\n/usr/sbin/*\n`);
    const apt = done.filter((line) => !line.startsWith("systemctl"));
    expect(apt).toHaveLength(2);
    // Exit status 101 prevents a package from starting its service.
    expect(apt[0]).toMatch(/ update: 101$/);
    expect(apt[1]).toContain(` install -y --no-install-recommends ${list}: 101`);
    for (const unit of ["ssh", "postfix", "redis-server", "haproxy", "nginx"])
      expect(done).toContain(`systemctl disable --quiet ${unit}.service`);
  });

  it("skips a package that is not available", async () => {
    const { status, done } = await install(`${RECORD}; case "$*" in *w3m*) exit 100;; esac`);
    expect(status).toBe(0);
    for (const name of NAMES) expect(done.join("\n")).toContain(`recommends ${name}: 101`);
  });

  it("does nothing without apt-get", async () => {
    const { status, stdout, done } = await install(undefined);
    expect({ status, stdout, done }).toEqual({ status: 0, stdout: "/usr/sbin/*\n", done: [] });
  });
});
