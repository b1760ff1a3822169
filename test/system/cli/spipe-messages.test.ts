/** Messages of spipe about its connection: the cause of a failure, and each step with --verbose. */
import { describe, expect, it } from "vitest";
import { commandOf, freeAddress, freePort, keyFile, run, startSpiped } from "../../support/programs.ts";
import { serve, startEcho } from "../../support/servers.ts";

async function startServer(...options: string[]) {
  const echo = await startEcho();
  const address = await freeAddress();
  const key = keyFile();
  await startSpiped("ours", "-d", address, echo.address, key, ...options);
  const spipe = (with_: string, ...more: string[]) =>
    run([...commandOf("ours", "spipe"), "-t", address.text, "-k", with_, ...more], "twelve bytes");
  return { address, key, spipe };
}

describe("a failed handshake", () => {
  it("with another key is reported as closed after our proof", async () => {
    const { spipe } = await startServer();
    expect(await spipe(keyFile())).toMatchObject({
      status: 1,
      stderr:
        "spipe: Handshake failed\nspipe: the peer closed the connection after our proof: probably its key differs, or it cannot connect to its target\n",
    });
  });

  it("with -f has the peer's -g among the reported causes", async () => {
    const { key, spipe } = await startServer("-g");
    expect(await spipe(key, "-f")).toMatchObject({
      status: 1,
      stderr: expect.stringMatching(/^spipe: Handshake failed\nspipe: .* or it uses -g, which rejects -f, /),
    });
  });

  it("with -g has the peer's -f as the reported cause", async () => {
    const { key, spipe } = await startServer("-f");
    expect(await spipe(key, "-g")).toMatchObject({
      status: 1,
      stderr: "spipe: Handshake failed\nspipe: the peer uses -f, which -g rejects\n",
    });
  });

  it("that times out is reported with the missing part", async () => {
    const silent = await serve((socket) => void socket.write(Buffer.alloc(32)));
    const args = ["-t", silent.address.text, "-k", keyFile(), "-o", "0.3"];
    expect(await run([...commandOf("ours", "spipe"), ...args])).toMatchObject({
      status: 1,
      stderr:
        "spipe: Connection error\nspipe: the peer sent no proof within 0.3 s: its target does not answer, or the peer is overloaded\n",
    });
  });
});

describe("a failed connect", () => {
  it("is reported for each address", async () => {
    const port = await freePort();
    const args = ["-t", `localhost:${port}`, "-k", keyFile()];
    const { status, stderr } = await run([...commandOf("ours", "spipe"), ...args]);
    expect(status).toBe(1);
    const [first, ...causes] = stderr.trimEnd().split("\n");
    expect(first).toBe("spipe: Could not connect");
    expect(causes).toContain(
      `spipe: [127.0.0.1]:${port}: Connection refused: check that spiped -d is running there`,
    );
    for (const cause of causes) expect(cause).toMatch(new RegExp(`^spipe: \\[[\\d.:]+\\]:${port}: `));
  });
});

describe("--verbose", () => {
  const steps = (stderr: string) =>
    stderr
      .trimEnd()
      .split("\n")
      .map((line) => line.replace(/^spipe: \d+ ms: /, "").replace(/\d+ ms$/, "N ms"));

  it("reports each step of a connection with times, on standard error only", async () => {
    const { address, key, spipe } = await startServer();
    const { status, stdout, stderr } = await spipe(key, "--verbose");
    expect({ status, stdout: String(stdout) }).toEqual({ status: 0, stdout: "twelve bytes" });
    expect(stderr).toMatch(/^(spipe: \d+ ms: .*\n)+$/);
    expect(steps(stderr)).toEqual([
      `resolved ${address.text} to ${address.text}`,
      `connecting to ${address.text}`,
      "connected in N ms",
      "nonce sent",
      "nonce received",
      "proof sent",
      "handshake complete in N ms",
      "EOF on standard input",
      "EOF from the peer",
      "sent 12 bytes, received 12 bytes",
    ]);
  });

  it("reports the last step of a failed handshake", async () => {
    const { spipe } = await startServer();
    const { status, stderr } = await spipe(keyFile(), "--verbose");
    expect(status).toBe(1);
    expect(steps(stderr).slice(-3, -1)).toEqual(["proof sent", "spipe: Handshake failed"]);
  });
});
