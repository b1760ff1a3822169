/** Failed connections in the log at the default level. */
import { expect, it } from "vitest";
import {
  commandOf,
  connectTo,
  freeAddress,
  keyFile,
  run,
  startSpiped,
  until,
} from "../../support/programs.ts";
import { rawHandshake, rawPacket } from "../../support/raw-peer.ts";
import { describeIfInstalled } from "../../support/requirements.ts";
import { serve, startEcho } from "../../support/servers.ts";

const spipe = (wire: { text: string }, key: string, ...options: string[]) =>
  run([...commandOf("c", "spipe"), "-t", wire.text, "-k", key, ...options], "hello");

/** Returns what a daemon logs from the start of `provoke` until a line is complete. */
async function lineOf(daemon: { stderr(): string }, provoke: () => Promise<unknown>): Promise<string> {
  const before = daemon.stderr().length;
  await provoke();
  const logged = () => daemon.stderr().slice(before);
  await until(() => logged().endsWith("\n"));
  return logged()
    .replaceAll(/127\.0\.0\.1:\d+/g, "CLIENT")
    .trimEnd();
}

describeIfInstalled("spiped", "spipe")("a connection that failed", () => {
  it("is logged once with what to check, by spiped -d", async () => {
    const key = keyFile();
    const target = await startEcho();
    const wire = await freeAddress();
    const daemon = await startSpiped("ours", "-d", wire, target.address, key, "-g", "-o", "0.3");
    const open = async () => {
      const socket = await connectTo(wire);
      return { socket, session: await rawHandshake(socket, key) };
    };
    const failed = "spiped: connection 1 from CLIENT failed:";
    const next = (number: number) => failed.replace("1", String(number));
    const to = (number: number) => next(number).replace(" failed", ` to CLIENT failed`);

    expect(await lineOf(daemon, () => spipe(wire, keyFile()))).toBe(
      `${failed} handshake: wrong key; the client's key differs, or it is not spiped: compare both sides' key files (spiped --check-key FILE, or sha256sum)`,
    );
    expect(await lineOf(daemon, async () => (await connectTo(wire)).end())).toBe(
      `${next(2)} handshake: peer closed; the client sent no handshake: a port scan, a health check, or a program that ` +
        "connects without spiped -e or spipe",
    );
    expect(await lineOf(daemon, async () => (await connectTo(wire)).write(Buffer.alloc(32)))).toBe(
      `${next(3)} handshake: timeout; the client did not finish its handshake: it is not spiped, its -o is too short, or its machine is overloaded`,
    );
    expect(await lineOf(daemon, () => spipe(wire, key, "-f"))).toBe(
      `${next(4)} handshake: peer offers no forward secrecy; the client uses -f, which -g rejects`,
    );
    expect(
      await lineOf(daemon, async () => {
        const { socket, session } = await open();
        const packet = rawPacket(session!.up, 0, "damaged");
        packet[7]! ^= 1;
        socket.end(packet);
      }),
    ).toBe(`${to(5)} peer: bad MAC at packet 0; the stream was damaged or forged in transit`);
    expect(
      await lineOf(daemon, async () => {
        const { socket, session } = await open();
        socket.end(rawPacket(session!.up, 0, "cut").subarray(0, 100));
      }),
    ).toBe(
      `${to(6)} peer: truncated in packet 0; data is missing: the peer crashed, or the connection was cut in transit`,
    );
    expect(
      await lineOf(daemon, async () => {
        const { socket } = await open();
        socket.resetAndDestroy();
      }),
    ).toBe(`${to(7)} peer: reset; the client reset the connection; check its log`);
    await new Promise((closed) => target.server.close(closed));
    expect(await lineOf(daemon, () => spipe(wire, key))).toMatch(
      /^spiped: connection 8 from CLIENT to \[127\.0\.0\.1\]:\d+ failed: target: refused; check that the target's service is running and listens on that address$/,
    );

    const before = daemon.stderr();
    await spipe(wire, keyFile());
    await spipe(wire, keyFile());
    await spipe(wire, key);
    expect(daemon.stderr()).toBe(before);
    daemon.child.kill("SIGTERM");
    await daemon.ended;
    expect(daemon.stderr().slice(before.length)).toMatch(
      /^spiped: connection 10 .*: handshake: wrong key; .* \(repeats in the last \d+ s: 2\)\nspiped: connection 11 .*: target: refused; .*: 1\)\n$/,
    );
  });

  it("is logged with what to check, by spiped -e", async () => {
    const key = keyFile();
    const plain = await freeAddress();
    const wire = await freeAddress();
    const daemon = await startSpiped("ours", "-e", plain, wire, key);
    const connect = async () => void (await connectTo(plain)).resume();
    expect(await lineOf(daemon, connect)).toMatch(
      / failed: target: refused; check that the target's service is running/,
    );
    const silent = await serve((socket) => void socket.end(), "IPv4");
    const other = await freeAddress();
    const toService = await startSpiped("ours", "-e", other, silent.address, key);
    expect(await lineOf(toService, async () => void (await connectTo(other)).resume())).toMatch(
      / failed: handshake: peer closed; the peer closed the connection before sending its nonce: check that it is a spiped -d /,
    );
    await startSpiped("c", "-d", wire, silent.address, keyFile());
    expect(await lineOf(daemon, connect)).toMatch(
      / failed: handshake: peer closed; the peer closed the connection after our proof: probably its key differs, or it cannot connect to its target$/,
    );
  });

  it("is logged with advice if its PROXY protocol header is missing", async () => {
    const [source, target] = [await freeAddress(), await serve((socket) => void socket.resume())];
    const options = ["--accept-proxy", "127.0.0.0/8", "-o", "0.3"];
    const daemon = await startSpiped("ours", "-e", source, target.address, keyFile(), ...options);
    const advice = "if that address does not send the PROXY protocol, remove it from --accept-proxy";
    for (const [reason, provoke] of [
      ["PROXY header: timeout", () => connectTo(source)],
      ["PROXY header: peer closed", async () => (await connectTo(source)).end()],
      ["no PROXY protocol header", async () => (await connectTo(source)).write("GET / HTTP/1.1\r\n")],
    ] as const) {
      expect(await lineOf(daemon, provoke)).toMatch(
        new RegExp(
          `^spiped: connection \\d from CLIENT failed: ${reason}; ${advice.replaceAll("?", "\\?")}$`,
        ),
      );
    }
    expect(target.sockets).toEqual([]);
  });

  it("is logged with the -b address if that is not an address of this machine", async () => {
    const source = await freeAddress();
    const daemon = await startSpiped("ours", "-e", source, "[127.0.0.1]:1", keyFile(), "-b", "192.0.2.9");
    expect(await lineOf(daemon, () => connectTo(source))).toMatch(
      / failed: target: Cannot assign requested address; check that \[192\.0\.2\.9\]:0 \(-b\) is an address of this machine with a free port$/,
    );
  });

  it("is logged, but one that ended cleanly or timed out idle is not", async () => {
    const key = keyFile();
    const echo = await startEcho();
    const wire = await freeAddress();
    const daemon = await startSpiped("ours", "-d", wire, echo.address, key, "--idle-timeout", "0.2");
    expect((await spipe(wire, key)).stdout.toString()).toBe("hello");
    const idle = await connectTo(wire);
    await rawHandshake(idle, key);
    await new Promise((closed) => idle.resume().once("close", closed));
    daemon.child.kill("SIGTERM");
    await daemon.ended;
    expect(daemon.stderr()).toBe("");
  });
});
