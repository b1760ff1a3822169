/** Releases: the commands of the workflows, run here, and the dependencies in the lock file. */
import { copyFileSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { parse } from "yaml";
import manifest from "../../../package.json" with { type: "json" };
import lock from "../../../package-lock.json" with { type: "json" };
import { run, temporaryDirectory } from "../../support/programs.ts";

interface Step {
  readonly name?: string;
  readonly uses?: string;
  readonly run?: string;
}

interface LockedPackage {
  readonly version?: string;
  readonly dev?: boolean;
  /** True for a development dependency that is also optional for a run-time dependency. */
  readonly devOptional?: boolean;
  readonly integrity?: string;
  readonly hasInstallScript?: boolean;
}

const WORKFLOWS = readdirSync(".github/workflows").map((file) => join(".github/workflows", file));

const locked: Record<string, LockedPackage> = lock.packages;
const dependencies = Object.entries(locked)
  .filter(([path]) => path !== "")
  .map(([path, entry]) => ({ ...entry, name: path.replace(/^.*node_modules\//, "") }));

function stepsOf(workflow: string): Step[] {
  const { jobs } = parse(readFileSync(workflow, "utf8")) as { jobs: Record<string, { steps: Step[] }> };
  return Object.values(jobs).flatMap(({ steps }) => steps);
}

/** Runs a step of publish.yml by name, as GitHub does, in a directory with copies of the package's files. */
async function runStep(name: string): Promise<string> {
  const directory = temporaryDirectory();
  for (const file of ["package.json", "package-lock.json"]) copyFileSync(file, join(directory, file));
  const step = stepsOf(".github/workflows/publish.yml").find((one) => one.name === name)!;
  const script = join(directory, "step.sh");
  writeFileSync(script, step.run!);
  const { status, stderr } = await run(["bash", "-e", script], "", {
    cwd: directory,
    env: {
      ...process.env,
      npm_config_offline: "true",
      GITHUB_SERVER_URL: "https://github.example",
      GITHUB_REPOSITORY: "somebody/spiped-node",
    },
  });
  expect(status, stderr).toBe(0);
  return directory;
}

describe("publishing", () => {
  it("sets the repository to the one in which it runs, as npm provenance requires", async () => {
    const directory = await runStep("Name the repository");
    const published = JSON.parse(readFileSync(join(directory, "package.json"), "utf8"));
    expect(published).toEqual({
      ...manifest,
      repository: { type: "git", url: "git+https://github.example/somebody/spiped-node.git" },
      bugs: { url: "https://github.example/somebody/spiped-node/issues" },
      homepage: "https://github.example/somebody/spiped-node#readme",
    });
  });

  it("lists all run-time dependencies in a CycloneDX SBOM, with hashes", async () => {
    const directory = await runStep("Write the SBOM");
    const sbom = JSON.parse(readFileSync(join(directory, "spiped.cdx.json"), "utf8"));
    expect(sbom).toMatchObject({ bomFormat: "CycloneDX", specVersion: expect.stringMatching(/^1\./) });
    expect(sbom.metadata.component).toMatchObject({ purl: `pkg:npm/spiped@${manifest.version}` });
    const listed = sbom.components.map(
      ({ name, version, hashes }: { name: string; version: string; hashes: { content: string }[] }) =>
        `${name}@${version} sha512-${Buffer.from(hashes[0]!.content, "hex").toString("base64")}`,
    );
    const line = ({ name, version, integrity }: (typeof dependencies)[number]) =>
      `${name}@${version} ${integrity}`;
    const needed = dependencies.filter(({ dev, devOptional }) => !dev && !devOptional).map(line);
    expect(needed.length).toBeGreaterThan(Object.keys(manifest.dependencies).length);
    // npm 10 also lists optional dependencies of packages.
    const optional = dependencies.filter(({ devOptional }) => devOptional).map(line);
    expect(listed.filter((one: string) => !optional.includes(one)).sort()).toEqual(needed.sort());
  });
});

describe("the workflows", () => {
  it.each(WORKFLOWS)("%s pins actions to commits", (workflow) => {
    const actions = stepsOf(workflow).flatMap(({ uses }) => uses ?? []);
    expect(actions.length).toBeGreaterThan(0);
    for (const action of actions) expect(action).toMatch(/^[\w./-]+@[0-9a-f]{40}$/);
  });

  it.each(WORKFLOWS)("%s runs no install script", (workflow) => {
    for (const { run: script } of stepsOf(workflow))
      expect(script ?? "").not.toMatch(/npm (ci|install)(?!.*--ignore-scripts)/);
  });
});

describe("the install scripts of dependencies", () => {
  // npm 11 warns about an install script that package.json neither allows nor denies; later versions do not run it.
  it("are all denied, and run-time dependencies have none", () => {
    const scripted = dependencies.filter(({ hasInstallScript }) => hasInstallScript);
    expect(scripted.filter(({ dev }) => dev !== true)).toEqual([]);
    expect(manifest.allowScripts).toEqual(Object.fromEntries(scripted.map(({ name }) => [name, false])));
  });
});
