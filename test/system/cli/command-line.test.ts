/** The command line, compared with Tarsnap's programs where both must behave the same. */
import { chmodSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import manifest from "../../../package.json" with { type: "json" };
import {
  commandOf,
  freeAddress,
  keyFile,
  type Program,
  readableCommandOf,
  run,
  temporaryDirectory,
} from "../../support/programs.ts";
import { describeIfInstalled } from "../../support/requirements.ts";
import { startEcho } from "../../support/servers.ts";

const ours = (program: Program, args: readonly string[], input = "") =>
  run([...commandOf("ours", program), ...args], input);
const upstream = (program: Program, args: readonly string[], input = "") =>
  run([...commandOf("c", program), ...args], input);
/** Splits a command line into arguments: '' becomes an empty one, and KEY a key file. */
const split = (line: string) =>
  line.split(" ").map((word) => (word === "''" ? "" : word === "KEY" ? keyFile() : word));

const D = "-d -s [127.0.0.1]:1 -t [127.0.0.1]:1 -k KEY";
const F = `-F ${D}`;
const LONG = `/tmp/${"x".repeat(120)}`;

describeIfInstalled("spiped", "spipe")(
  "error messages of Tarsnap's programs are byte-identical in ours:",
  () => {
    it.each([
      ["-n foo"],
      ["-n 1.5"],
      ["-n ''"],
      ["-n 0x"],
      ["-n 09"],
      ["-n 99999999999999999999999"],
      ["-n -99999999999999999999999"],
      ["-o abc"],
      ["-o ''"],
      ["-o -1"],
      ["-o 1e999"],
      ["-o 1e-999"],
      ["-o 5x"],
      ["-r -5"],
      ["-r foo"],
      ["-o -inf"],
      ["-d -s foo -t bar:1 -k KEY"],
      ["-d -s [127.0.0.1]:0 -t x:1 -k KEY"],
      ["-d -s [127.0.0.1]:65536 -t x:1 -k KEY"],
      ["-d -s [127.0.0.1]:+99x -t x:1 -k KEY"],
      ["-d -s [127.0.0.1 -t x:1 -k KEY"],
      ["-d -s [127.0.0.1:5 -t x:1 -k KEY"],
      ["-d -s [127.0.0.999]:5 -t x:1 -k KEY"],
      ["-d -s [127.1]:5 -t x:1 -k KEY"],
      ["-d -s [::1%lo]:99 -t x:1 -k KEY"],
      ["-d -s [::1]:99 -t [::g]:1 -k KEY"],
      ["-d -s [127.0.0.1]:1 -t nosuch.invalid:1 -k KEY"],
      ["-d -s [127.0.0.1]:1 -t 127.0.0.1:nosuchservice -k KEY"],
      [`-d -s ${LONG} -t x:1 -k KEY`],
      [F.replace("KEY", "/nonexistent/key")],
      [`${F} -u nosuchuser`],
      [`${F} -u nobody:`],
      [`${F} -u :`],
      [`${F} -u ''`],
      [`${F} -u nobody:nosuchgroup`],
      [`${F} -u :nosuchgroup`],
    ])("spiped %s", async (line) => {
      const [our, its] = await Promise.all([ours("spiped", split(line)), upstream("spiped", split(line))]);
      expect(its.status).toBe(1);
      expect(our).toEqual(its);
    });

    it.each([
      [
        "-d -s 21020 -t x:1 -k KEY",
        "write [127.0.0.1]:21020 to listen on this machine only, [0.0.0.0]:21020",
      ],
      ["-d -s 127.0.0.1 -t x:1 -k KEY", "write [127.0.0.1]:PORT"],
      ["-d -s [::1] -t x:1 -k KEY", "write [::1]:PORT"],
      ["-d -s tmp/socket -t x:1 -k KEY", "the path of a UNIX socket must be absolute: /"],
      ["-F -d -s [127.0.0.1]:1 -t 22 -k KEY", "write HOST:22, such as [127.0.0.1]:22"],
      [
        "-F -d -s [192.0.2.1]:9 -t [127.0.0.1]:1 -k KEY",
        "no interface of this machine has the address 192.0.2.1",
      ],
      ["-F -d -s /nonexistent/socket -t [127.0.0.1]:1 -k KEY", "create the directory /nonexistent first"],
      [
        "-F -d -s [127.0.0.1]:1 -t [127.0.0.1]:1 -k ''",
        "The name of the key file is empty: name one with -k",
      ],
    ])("spiped %s, followed by a hint", async (line, hint) => {
      const args = split(line);
      const [our, its] = await Promise.all([ours("spiped", args), upstream("spiped", args)]);
      expect(its.status).toBe(1);
      const added = our.stderr.slice(its.stderr.length);
      expect(our).toEqual({ ...its, stderr: its.stderr + added });
      expect(added).toMatch(/^spiped: .*\n$/);
      expect(added).toContain(hint);
    });

    it.each([["-t 127.0.0.1:1 -k /nonexistent"], ["-t foo -k KEY"], ["-t 127.0.0.1:1 -k KEY -o x"]])(
      "spipe %s",
      async (line) => {
        const [our, its] = await Promise.all([ours("spipe", split(line)), upstream("spipe", split(line))]);
        expect(its.status).toBe(1);
        expect(our).toEqual(its);
      },
    );

    it("spipe with a refused connection, followed by the address and the cause", async () => {
      const args = ["-t", "[127.0.0.1]:1", "-k", keyFile()];
      const [our, its] = await Promise.all([ours("spipe", args), upstream("spipe", args)]);
      expect(its).toMatchObject({ status: 1, stderr: "spipe: Could not connect\n" });
      expect(our).toEqual({
        ...its,
        stderr: `${its.stderr}spipe: [127.0.0.1]:1: Connection refused: does spiped -d run there?\n`,
      });
    });

    it("spiped with an address in use, followed by a hint", async () => {
      const echo = await startEcho();
      const args = ["-F", "-d", "-s", echo.address.text, "-t", "[127.0.0.1]:1", "-k", keyFile()];
      const [our, its] = await Promise.all([ours("spiped", args), upstream("spiped", args)]);
      expect(its.stderr).toBe("spiped: Error binding socket: Address already in use\n");
      expect(our).toEqual({
        ...its,
        stderr: `${its.stderr}spiped: ${echo.address.text} is in use (ss -ltnp shows by which process): stop that process, or choose another port\n`,
      });
    });

    it("spiped with a pid file that can't be written", async () => {
      const source = await freeAddress();
      const args = [
        "-d",
        "-s",
        source.text,
        "-t",
        "[127.0.0.1]:1",
        "-k",
        keyFile(),
        "-p",
        "/nonexistent/pid",
      ];
      const [our, its] = [await ours("spiped", args), await upstream("spiped", args)];
      expect(our).toEqual(its);
    });
  },
);

describeIfInstalled("spiped", "spipe")(
  "command lines that Tarsnap's programs reject with the usage text are rejected by ours, with the wrong argument:",
  () => {
    const upstreamMessage = (stderr: string) =>
      /^spiped: (illegal option|Missing argument)/.test(stderr) ? stderr.split("\n")[0] : undefined;

    it.each([
      ["", "-e or -d is missing"],
      ["-d", "-s is missing"],
      ["-d -s x:1", "-t is missing"],
      ["-d -s x:1 -t y:1", "-k is missing"],
      ["-d -e", "-e and -d exclude each other"],
      ["-d -d", "-d was given twice"],
      ["-k a -k b", "-k was given twice"],
      ["-F -j -F", "-F was given twice"],
      ["-x -v", "no such option; -h lists all options"],
      ["-Fxk", "no such option; -h lists all options"],
      ["--syslog=x", "this option takes no value"],
      ["--sys", "no such option; did you mean --syslog?"],
      ["--worker=2", "no such option; did you mean --workers?"],
      ["--soruce", "no such option; did you mean --source?"],
      ["--foo", "no such option; -h lists all options"],
      ["-1", "no such option; -h lists all options"],
      ["-k", "-k needs a value"],
      ["-Fk", "-k needs a value"],
      [`${D} foo`, "unexpected argument: foo"],
      ["-d foo -v", "unexpected argument: foo"],
      ["-", "unexpected argument: -"],
      ["--", "-e or -d is missing"],
      ["-- -v", "unexpected argument: -v"],
      ["-o nan", "-o needs a number"],
      [`${D} -f -g`, "-f and -g exclude each other"],
      [`${D} -r 5 -R`, "-r and -R exclude each other"],
    ])("spiped %s", async (line, hint) => {
      const args = line === "" ? [] : split(line);
      const [our, its] = await Promise.all([ours("spiped", args), upstream("spiped", args)]);
      expect([its.status, our.status]).toEqual([1, 1]);
      expect(our.stdout).toHaveLength(0);
      expect(its.stderr).toContain("usage: spiped");
      expect(our.stderr).toContain("usage: spiped");
      expect(upstreamMessage(our.stderr)).toBe(upstreamMessage(its.stderr));
      const last = our.stderr.trimEnd().split("\n").pop();
      expect(last).toContain(hint);
      // The unknown option is named once, before the usage text.
      if (hint.startsWith("no such option")) expect(last).toBe(`spiped: ${hint}`);
    });

    it.each(["-v", "-Fv", "-vx", "-v -d -e"])("but %s prints the version on standard error", async (line) => {
      for (const program of ["spiped", "spipe"] as const) {
        const args = program === "spipe" ? ["-v"] : split(line);
        const [our, its] = await Promise.all([ours(program, args), upstream(program, args)]);
        expect(its).toMatchObject({ status: 0, stderr: `${program} 1.6.2\n` });
        expect(our).toEqual({ ...its, stderr: `${program} ${manifest.version}\n` });
      }
    });
  },
);

describe("differences from Tarsnap's spiped 1.6", () => {
  it.each([
    ["-d -s '' -t x:1 -k KEY", "spiped: Empty socket address"],
    ["-d -s :8080 -t x:1 -k KEY", 'spiped: No host in ":8080"'],
  ])("spiped %s is rejected with the usage text", async (line, first) => {
    const { status, stderr } = await ours(
      "spiped",
      split(line).map((word) => word.replace("''", "")),
    );
    expect(status).toBe(1);
    expect(stderr.split("\n")[0]).toBe(first);
    expect(stderr).toContain("usage: spiped");
  });

  it.each(["spiped", "spipe"] as const)(
    "%s -h and --help print the help on standard output",
    async (program) => {
      for (const option of ["-h", "--help"]) {
        const { status, stdout, stderr } = await ours(program, [option, "-x"]);
        expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
        expect(stdout.toString()).toMatch(new RegExp(`^usage: ${program}`));
        expect(stdout.toString()).toContain("--require-forward-secrecy");
      }
    },
  );

  it("long options are equivalent to the short ones", async () => {
    const args = [
      "--encrypt",
      "--foreground",
      "--source=[127.0.0.1]:1",
      "--target",
      "nosuch.invalid:1",
      "--key",
      keyFile(),
    ];
    const { stderr } = await ours("spiped", args);
    expect(stderr).toContain("Error looking up nosuch.invalid");
    const twice = await ours("spiped", ["-d", "--decrypt"]);
    expect(twice.stderr).toContain("--decrypt was given twice");
  });

  it("spipe -b reports the address that it could not bind", async () => {
    const echo = await startEcho();
    const { status, stderr } = await ours("spipe", [
      "-t",
      echo.address.text,
      "-k",
      keyFile(),
      "-b",
      "192.0.2.1",
    ]);
    expect(status).toBe(1);
    expect(stderr).toBe(
      "spipe: Error binding socket: Cannot assign requested address\nspipe: Could not connect\n" +
        `spipe: ${echo.address.text}: cannot connect from [192.0.2.1]:0: Cannot assign requested address: is it an address of this machine?\n`,
    );
    const wrong = await ours("spipe", ["-t", echo.address.text, "-k", keyFile(), "-b", "[127.0.0.999]"]);
    expect(wrong.stderr).toContain("spipe: Error parsing IP address: 127.0.0.999");
    expect(wrong.stderr).toContain("spipe: Failed to get bind address");
  });
});

describe("an invalid value of an option that only ours has", () => {
  it.each([
    ["--workers many", "--workers needs auto or a number from 1 to 256, not many"],
    ["--idle-timeout x", "--idle-timeout needs a number of seconds (0 or more), not x"],
    ["--log-level foo", "--log-level needs warn or info, not foo"],
    ["--log-level=", "--log-level needs warn or info, not an empty value"],
    ["--config=", "--config needs a file name, not an empty value"],
    ["--config /nonexistent", "Cannot read /nonexistent: No such file or directory"],
    ["--check-key=", "--check-key needs a file name, not an empty value"],
    ["--generate-key=", "--generate-key needs a file name, not an empty value"],
  ])("%s is reported in one line", async (line, message) => {
    const { status, stderr } = await ours(
      "spiped",
      ["-F", ...line.split(" ")].slice(/-key|config/.test(line) ? 1 : 0),
    );
    expect({ status, stderr }).toEqual({ status: 1, stderr: `spiped: ${message}\n` });
  });
});

describeIfInstalled("setpriv")("a port that needs privileges", () => {
  it("is reported with a hint", async () => {
    const directory = temporaryDirectory();
    chmodSync(directory, 0o755);
    const key = join(directory, "key");
    writeFileSync(key, "k".repeat(32), { mode: 0o644 });
    const user =
      process.geteuid!() === 0 ? ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] : [];
    const args = ["-F", "-d", "-s", "[127.0.0.1]:7", "-t", "[127.0.0.1]:1", "-k", key];
    const { status, stderr } = await run([...user, ...readableCommandOf("spiped"), ...args]);
    expect(status).toBe(1);
    expect(stderr).toContain(
      "spiped: Error binding socket: Permission denied\nspiped: [127.0.0.1]:7 is below port 1024, which needs privileges: ",
    );
  });
});

describe("a key", () => {
  it("is read from standard input in full", async () => {
    const { status, stderr } = await ours(
      "spipe",
      ["-t", "[127.0.0.1]:1", "-k", "-"],
      `${"secret".repeat(6)}\n`,
    );
    expect(status).toBe(1);
    expect(stderr).toMatch(/^spipe: Could not connect\n/);
  });

  it("that is a directory is rejected with its path", async () => {
    const directory = temporaryDirectory();
    mkdirSync(join(directory, "k"));
    for (const [program, args] of [
      ["spipe", []],
      ["spiped", ["-F", "-e", "-s", "[127.0.0.1]:1"]],
    ] as const) {
      const { stderr } = await ours(program, [...args, "-t", "[127.0.0.1]:1", "-k", join(directory, "k")]);
      expect(stderr).toBe(
        `${program}: Error reading file: ${join(directory, "k")}: Is a directory\n` +
          `${program}: Error reading shared secret\n` +
          `${program}: Who connects holds one key: -k takes a directory of keys with spiped -d only\n`,
      );
    }
  });

  it("does not appear in error messages", async () => {
    const key = keyFile();
    writeFileSync(key, "very secret key material");
    const { stderr } = await ours("spipe", ["-t", "[127.0.0.1]:1", "-k", key]);
    expect(stderr).not.toContain("secret key material");
  });
});
