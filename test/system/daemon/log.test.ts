/** The log: the events of each connection with the reason for its end, and those of the daemon. */
import { readFileSync } from "node:fs";
import { expect, it } from "vitest";
import { VERSION } from "../../../src/cli/version.ts";
import { withoutLifecycleLines } from "../../support/log-lines.ts";
import {
  commandOf,
  connectTo,
  freeAddress,
  keyFile,
  run,
  start,
  startSpiped,
  until,
} from "../../support/programs.ts";
import { rawHandshake, rawPacket } from "../../support/raw-peer.ts";
import { describeIfInstalled } from "../../support/requirements.ts";
import { exchange, startEcho } from "../../support/servers.ts";

describeIfInstalled("spiped", "spipe")("--log-level info", () => {
  it("logs the opening and the end of each connection, with the reason", async () => {
    const key = keyFile();
    const echo = await startEcho();
    const wire = await freeAddress();
    const daemon = await startSpiped("ours", "-d", wire, echo.address, key, "--log-level", "info", "-o", "1");
    const spipe = (file: string) => run([...commandOf("c", "spipe"), "-t", wire.text, "-k", file], "hello");
    await spipe(key);
    const log = () => withoutLifecycleLines(daemon.stderr());
    await until(() => log().split("\n").length > 2);
    const [opened, ended] = log().split("\n");
    const { text } = echo.address;
    const target = text.replace(/[[\]]/g, "");
    expect(opened).toMatch(
      new RegExp(`^spiped: connection 1 from 127\\.0\\.0\\.1:\\d+ to ${target} opened$`),
    );
    expect(ended).toMatch(
      new RegExp(
        `^spiped: connection 1 from 127\\.0\\.0\\.1:\\d+ to ${target} ended after \\d\\.\\d{3} s, ` +
          "5 bytes encrypted, 5 bytes decrypted: closed$",
      ),
    );

    const reason = async (provoke: () => Promise<unknown>) => {
      const before = daemon.stderr().length;
      await provoke();
      const said = () => / bytes decrypted: (.*)\n/.exec(daemon.stderr().slice(before));
      await until(() => said() !== null);
      return said()![1];
    };
    expect(await reason(() => spipe(keyFile()))).toBe("handshake: wrong key");
    expect(await reason(() => connectTo(wire))).toBe("handshake: timeout");
    expect(await reason(async () => (await connectTo(wire)).end())).toBe("handshake: peer closed");
    const forged = async (spoil: (packet: Buffer) => Buffer) => {
      const socket = await connectTo(wire);
      const session = await rawHandshake(socket, key);
      socket.write(rawPacket(session!.up, 0, "fine"));
      socket.end(spoil(rawPacket(session!.up, 1, "spoiled")));
    };
    expect(
      await reason(() =>
        forged((packet) => {
          packet[7]! ^= 1;
          return packet;
        }),
      ),
    ).toBe("peer: bad MAC at packet 1");
    expect(await reason(() => forged((packet) => packet.subarray(0, 500)))).toBe(
      "peer: truncated in packet 1",
    );
    await new Promise((closed) => echo.server.close(closed));
    expect(await reason(() => spipe(key))).toBe("target: refused");
  });

  it("logs one JSON object per line with --log-format json, without key or payload", async () => {
    const key = keyFile();
    const echo = await startEcho();
    const wire = await freeAddress();
    const plain = await freeAddress();
    const options = ["--log-level", "info", "--log-format", "json"];
    const server = await startSpiped("ours", "-d", wire, echo.address, key, ...options);
    await startSpiped("c", "-e", plain, wire, key);
    expect(String(await exchange(plain, "a secret message"))).toBe("a secret message");
    await until(() => server.stderr().split("\n").length === 5);
    const [starting, listening, opened, ended] = server
      .stderr()
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line));
    expect(starting).toMatchObject({ name: "spiped", level: 30, msg: `starting, version ${VERSION}` });
    expect(listening.msg).toBe(`listening on ${wire.text}, decrypting to ${echo.address.text}`);
    expect(opened).toMatchObject({ name: "spiped", level: 30, event: "opened", connection: 1 });
    const reason = { reason: "closed", reason_id: "closed" };
    expect(ended).toMatchObject({ event: "ended", encrypted: 16, decrypted: 16, ...reason });
    expect(ended.peer).toMatch(/^127\.0\.0\.1:\d+$/);
    expect(server.stderr()).not.toContain("secret message");
    expect(server.stderr()).not.toContain(readFileSync(key).toString("hex"));

    await run([...commandOf("c", "spipe"), "-t", wire.text, "-k", keyFile()]);
    await until(() => server.stderr().split("\n").length === 7);
    const failure = server.stderr().trim().split("\n").slice(-2);
    for (const line of failure)
      expect(JSON.parse(line)).toMatchObject({ reason: "handshake: wrong key", reason_id: "wrong-key" });
  });

  it.each(["1", "2"])("logs the start, reload and stop of the daemon, with %s workers", async (workers) => {
    const key = keyFile();
    const echo = await startEcho();
    const wire = await freeAddress();
    const options = ["--log-level", "info", "--workers", workers];
    const daemon = await startSpiped("ours", "-d", wire, echo.address, key, ...options);
    const lines = () =>
      daemon
        .stderr()
        .split("\n")
        .filter((line) => line !== "" && !line.includes("connection 1 from"));
    const spipe = start([...commandOf("c", "spipe"), "-t", wire.text, "-k", key]);
    spipe.child.stdin!.write("hello");
    await until(() => spipe.stdout().length > 0);
    daemon.child.kill("SIGHUP");
    await until(() => lines().length === 4);
    daemon.child.kill("SIGTERM");
    await until(() => lines().length === 7);
    spipe.child.stdin!.end();
    await daemon.ended;
    expect(lines()).toEqual([
      `spiped: starting, version ${VERSION}`,
      `spiped: listening on ${wire.text}, decrypting to ${echo.address.text}`,
      "spiped: reloading",
      "spiped: reloaded",
      "spiped: stopping",
      `spiped: stopped listening on ${wire.text}`,
      "spiped: draining: 1 connection left",
      "spiped: stopped",
    ]);
  });
});
