/** The log that answers "why was it dropped?". */
import { readFileSync } from "node:fs";
import { expect, it } from "vitest";
import { commandOf, connectTo, freeAddress, keyFile, run, startSpiped, until } from "../support/programs.ts";
import { rawHandshake, rawPacket } from "../support/raw-peer.ts";
import { describeWith } from "../support/requirements.ts";
import { exchange, startEcho } from "../support/servers.ts";

describeWith("spiped", "spipe")("--log-level info", () => {
  it("tells of each connection's way and end, with the reason", async () => {
    const key = keyFile();
    const echo = await startEcho();
    const wire = await freeAddress();
    const daemon = await startSpiped("ours", "-d", wire, echo.address, key, "--log-level", "info", "-o", "1");
    const spipe = (file: string) => run([...commandOf("c", "spipe"), "-t", wire.text, "-k", file], "hello");
    await spipe(key);
    await until(() => daemon.stderr().split("\n").length > 2);
    const [opened, ended] = daemon.stderr().split("\n");
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
      "peer: stream cut inside packet 1",
    );
    await new Promise((closed) => echo.server.close(closed));
    expect(await reason(() => spipe(key))).toBe("target: refused");
  });

  it("is one JSON object a line with --log-format json, without key or payload", async () => {
    const key = keyFile();
    const echo = await startEcho();
    const wire = await freeAddress();
    const plain = await freeAddress();
    const options = ["--log-level", "info", "--log-format", "json"];
    const server = await startSpiped("ours", "-d", wire, echo.address, key, ...options);
    await startSpiped("c", "-e", plain, wire, key);
    expect(String(await exchange(plain, "a secret message"))).toBe("a secret message");
    await until(() => server.stderr().split("\n").length === 3);
    const [opened, ended] = server
      .stderr()
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line));
    expect(opened).toMatchObject({ name: "spiped", level: 30, event: "opened", connection: 1 });
    expect(ended).toMatchObject({ event: "ended", encrypted: 16, decrypted: 16, reason: "closed" });
    expect(ended.peer).toMatch(/^127\.0\.0\.1:\d+$/);
    expect(server.stderr()).not.toContain("secret message");
    expect(server.stderr()).not.toContain(readFileSync(key).toString("hex"));
  });

  it("is quiet otherwise, as the original is", async () => {
    const key = keyFile();
    const wire = await freeAddress();
    const daemons = [
      await startSpiped("ours", "-d", wire, "[127.0.0.1]:1", key),
      await startSpiped("c", "-d", await freeAddress(), "[127.0.0.1]:1", key),
    ];
    await run([...commandOf("c", "spipe"), "-t", wire.text, "-k", keyFile()]);
    for (const daemon of daemons) expect(daemon.stderr()).toBe("");
  });
});
