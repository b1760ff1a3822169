/** The vector kit as its users have it: packed, installed elsewhere, and run against programs that are given to it. */
import { chmodSync, existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { expect, it } from "vitest";
import { commandOf, type Implementation, run, temporaryDirectory } from "../../support/programs.ts";
import { describeIfInstalled } from "../../support/requirements.ts";

/** Packs the kit and installs it in an empty project; returns a function that runs its command there, with the directory. */
async function installKit() {
  const directory = temporaryDirectory();
  const npm = (...args: string[]) => run(["npm", ...args], "", { cwd: directory });
  writeFileSync(join(directory, "package.json"), "{}");
  expect(await npm("pack", "--ignore-scripts", resolve("test/vectors/kit"))).toMatchObject({ status: 0 });
  const archive = readdirSync(directory).find((name) => name.endsWith(".tgz"))!;
  expect(await npm("install", "--offline", `./${archive}`)).toMatchObject({ status: 0 });
  const command = join(directory, "node_modules/.bin/spiped-vectors");
  const runKit = async (...args: string[]) => {
    const { status, stdout, stderr } = await run([command, ...args], "", { cwd: directory });
    const lines = stdout.toString().split("\n");
    const linesOf = (start: string) => lines.filter((line) => line.startsWith(start));
    return { status, stderr, failed: linesOf("FAIL"), passed: linesOf("ok"), allowed: linesOf("allowed") };
  };
  return Object.assign(runKit, { directory });
}

it("is a package without dependencies, whose vectors other programs can load", {
  timeout: 60_000,
}, async () => {
  const { directory } = await installKit();
  expect(readdirSync(join(directory, "node_modules")).filter((name) => !name.startsWith("."))).toEqual([
    "spiped-vectors",
  ]);
  const files = join(directory, "node_modules/spiped-vectors");
  expect(readFileSync(join(files, "LICENSE"), "utf8")).toBe(readFileSync("LICENSE", "utf8"));
  for (const name of ["handshakes", "key-files", "packets"]) {
    const program = `process.stdout.write(JSON.stringify(require("spiped-vectors/${name}.json")))`;
    const { stdout } = await run([process.execPath, "-e", program], "", { cwd: directory });
    const expected: unknown = JSON.parse(readFileSync(`test/vectors/kit/${name}.json`, "utf8"));
    expect(JSON.parse(stdout.toString())).toEqual(expected);
  }
});

/** What Tarsnap's programs and ours do differently from each other, and the protocol allows. */
const ALLOWED: Record<Implementation, string[]> = {
  c: [
    "connects to its target before it knows whether the client has the key",
    "loses good packets that arrive together with what is wrong",
    "takes a stream that ends inside a packet for a complete one",
  ],
  ours: ["refuses an empty key file"],
};

describeIfInstalled("spiped", "spipe")("the vector kit", () => {
  it.each(["c", "ours"] as const)("%s: finds no fault", { timeout: 240_000 }, async (maker) => {
    const kit = await installKit();
    const command = (program: "spiped" | "spipe") => commandOf(maker, program).join(" ");
    const result = await kit("--spiped", command("spiped"), "--spipe", command("spipe"), "--timeout", "30");
    expect(result).toMatchObject({ status: 0, stderr: "", failed: [] });
    expect(result.passed.length).toBeGreaterThan(250);
    const what = result.allowed.map((line) => line.replace(/^allowed difference, in \d+ checks: /, ""));
    // Whether a program connects or loses data before it notices what is wrong depends on timing.
    expect(ALLOWED[maker]).toEqual(expect.arrayContaining(what));
  });
});

/** Faults of `faulty-spiped.mjs`: the checks to run, and what the kit must report. */
const FAULTS: readonly (readonly [fault: string, only: string, report: RegExp])[] = [
  ["accepts-any-handshake", "the peer has another key", /another key: no end of the connection/],
  ["compares-half-of-the-mac", "last byte of the tag", /last byte of the tag: no end of the connection/],
  ["no-range-check", "the peer sends p+1", /p\+1: no end of the connection/],
  ["accepts-reflection", "reflected", /reflected: no end of the connection/],
  ["ignores-g", "strict, the peer weak", /the peer weak: no end of the connection/],
  ["rejects-zero", "the peer sends 0", /sends 0: closes the connection/],
  ["answers-first", "the peer has another key", /spiped -d: .*: sends 288 bytes to a peer that it refuses/],
  ["explains-refusals", "the peer has another key", /: sends \d+ bytes to a peer that it refuses/],
  ["trims-key", "both strong", /closes the connection after 0 bytes|has a wrong MAC/],
  ["mac-without-nonces", "both strong", /has a wrong MAC/],
  ["same-nonce", "nonce comes at once", /repeats its nonce/],
  ["waits-for-nonce", "nonce comes at once", /spiped -d: .*: no nonce before ours/],
  ["same-exponent", "has another y", /repeats its y/],
  ["no-timeout", "stops after 319", /is disconnected: no end of the connection/],
  ["no-packet-mac", "flipped bit in the data", /delivers 40 bytes which are not the first|no end of the/],
  ["no-length-check", "a length of 1025", /delivers 1024 bytes which are not the first|no end of the/],
  ["accepts-replays", "a packet replayed", /no end of the plaintext side/],
  ["skips-bad-packets", "a packet replayed", /no end of the plaintext side/],
  ["stops-silently", "flipped bit in the tag", /no end of the plaintext side/],
  ["never-closes", "the peer has another key", /no end of the connection/],
  ["delivers-half-a-packet", "packets.json: cut after", /delivers \d+ bytes which are not the first/],
  ["checks-padding", "padding that is not zero", /data: 0 bytes that differ/],
  ["no-reassembly", "byte by byte", /./],
  ["long-packets", "in legal packets", /has a wrong MAC or length/],
  ["repeats-numbers", "in legal packets", /packet 2 has a wrong MAC or length/],
  ["shares-counter", "20 sessions", /has a wrong MAC or length/],
  ["closes-at-half-close", "the peer half-closes first", /data after the half-close/],
  ["drops-ends", "the peer half-closes first", /no end of the stream on the other side/],
  ["closes-at-the-plaintext-end", "the plaintext side half-closes first", /data after the half-close/],
  ["sends-after-the-end", "both strong", /sends 1 bytes after its data|more/],
];

it("finds each fault of a faulty program, and none in the same program without", {
  timeout: 240_000,
}, async () => {
  const kit = await installKit();
  const check = (fault: string, ...args: string[]) =>
    kit("--spiped", `${process.execPath} ${resolve("test/support/faulty-spiped.mjs")} ${fault}`, ...args);
  const faults = [...FAULTS];
  const work = async () => {
    for (let next = faults.pop(); next !== undefined; next = faults.pop()) {
      const [fault, only, report] = next;
      const { status, failed } = await check(fault, "--only", only, "--timeout", "3");
      expect({ fault, status }).toEqual({ fault, status: 1 });
      expect(
        failed.some((line) => report.test(line)),
        `${fault}: ${failed.join("\n")}`,
      ).toBe(true);
    }
  };
  await Promise.all(Array.from({ length: 4 }, work));
  for (const only of new Set(FAULTS.map(([, only]) => only)))
    expect(await check("none", "--only", only, "--timeout", "30"), only).toMatchObject({
      status: 0,
      failed: [],
    });
  const program = readFileSync("test/support/faulty-spiped.mjs", "latin1");
  const all = [...program.matchAll(/has\("([a-z-]+)"\)/g)].map(([, fault]) => fault);
  expect(FAULTS.map(([fault]) => fault).sort()).toEqual([...new Set(all)].sort());
});

it("notices a spipe that exits with 0 after a failure, and programs that do not start", {
  timeout: 60_000,
}, async () => {
  const kit = await installKit();
  const wrapper = join(temporaryDirectory(), "spipe");
  writeFileSync(wrapper, `#!/bin/sh\n${commandOf("ours", "spipe").join(" ")} "$@"\nexit 0\n`);
  chmodSync(wrapper, 0o755);
  const lying = await kit("--spipe", wrapper, "--only", "another key", "--timeout", "20");
  expect(lying).toMatchObject({ status: 1, failed: [expect.stringMatching(/another key: exits with 0$/)] });
  const absent = join(temporaryDirectory(), "absent");
  expect(existsSync(absent)).toBe(false);
  const missing = await kit("--spiped", absent, "--only", "both strong", "--timeout", "3");
  expect(missing.status).toBe(1);
  expect(missing.failed[0]).toMatch(/the program ended at once: spawn .* ENOENT$/);
});

it("rejects wrong arguments, and does not pass if no check was run", { timeout: 60_000 }, async () => {
  const kit = await installKit();
  for (const args of [[], ["--spiped", ""], ["--unknown"], ["--spiped", "x", "--timeout", "0"]]) {
    const { status, stderr } = await kit(...args);
    expect(status, args.join(" ")).toBe(2);
    expect(stderr).toContain("usage: spiped-vectors");
  }
  expect(await kit("--spiped", "true", "--only", "no such check")).toMatchObject({ status: 1, failed: [] });
});
