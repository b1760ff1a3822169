/** The vector kit's cases shown to the original: its `spiped -d` must come to the same end as the kit says. */
import { expect, it } from "vitest";
import { connectTo, freeAddress, keyFile, type Maker, startSpiped, until } from "../support/programs.ts";
import { P, type RawSession, rawHandshake, rawPacket } from "../support/raw-peer.ts";
import { describeWith } from "../support/requirements.ts";
import { serve } from "../support/servers.ts";
import packets from "../vectors/kit/packets.json" with { type: "json" };

/** A daemon, and what its target gets from each connection, with the way it ended. */
async function withTarget(maker: Maker, ...options: string[]) {
  const key = keyFile();
  const got: { data: Buffer[]; over: boolean }[] = [];
  const target = await serve((socket) => {
    const entry = { data: [] as Buffer[], over: false };
    got.push(entry);
    socket.on("data", (chunk) => entry.data.push(chunk));
    socket.on("end", () => socket.end());
    socket.on("close", () => {
      entry.over = true;
    });
  });
  const wire = await freeAddress();
  await startSpiped(maker, "-d", wire, target.address, key, ...options);
  return { key, wire, got };
}

/** A packet of the kit, with the keys of a live session. */
function packetOf(session: RawSession, described: (typeof packets)[number]["made_of"][number]): Buffer {
  const { number, data, length, flip, foreign } = described as {
    number: string;
    data: string;
    length?: number;
    flip?: number;
    foreign?: boolean;
  };
  const keys = foreign ? session.down : session.up;
  const packet = rawPacket(keys, Number(number), Buffer.from(data, "hex"), length ?? data.length / 2);
  if (flip !== undefined) packet[flip]! ^= 1;
  return packet;
}

describeWith("spiped").each(["c", "ours"] as const)("%s: the kit's packets", (maker) => {
  // A live session begins at packet 0, and cannot choose what its padding is.
  const shown = packets.filter(
    ({ first_packet, made_of, receives }) =>
      first_packet === "0" &&
      receives !== "" &&
      made_of.every((one) => !("padding" in one) && Number(one.number) < 100),
  );

  it.each(shown.map((vector) => [vector.name, vector] as const))("%s", async (_name, vector) => {
    const { key, wire, got } = await withTarget(maker);
    const socket = await connectTo(wire);
    const session = await rawHandshake(socket, key);
    const stream = Buffer.concat(vector.made_of.map((described) => packetOf(session!, described)));
    socket.resume();
    socket.end(stream.subarray(0, "cut" in vector ? vector.cut : undefined));
    await until(() => got.length === 1 && got[0]!.over);
    const delivered = Buffer.concat(got[0]!.data).toString("hex");
    // What is still on its way to the target when a bad packet comes may be lost: what arrives is a prefix.
    expect(vector.delivers.startsWith(delivered)).toBe(true);
    if (vector.outcome === "clean") expect(delivered).toBe(vector.delivers);
  });
});

describeWith("spiped").each(["c", "ours"] as const)("%s: a client's value and tag", (maker) => {
  it.each([
    ["0", 0n, true],
    ["1", 1n, true],
    ["p-1", P - 1n, undefined],
    ["p", P, false],
    ["p+1", P + 1n, false],
    ["2^2048-1", 2n ** 2048n - 1n, false],
  ])("y = %s", async (_name, y, accepted) => {
    const { key, wire } = await withTarget(maker);
    const answered = (await rawHandshake(await connectTo(wire), key, { y })) !== undefined;
    // Of p-1 the result depends on the server's exponent; that it answers is all there is to see.
    expect(answered).toBe(accepted ?? true);
  });

  it.each([
    ["y", 0],
    ["the end of y", 255],
    ["the tag", 256],
    ["the end of the tag", 287],
  ])("a flipped bit in %s", async (_name, offset) => {
    const { key, wire, got } = await withTarget(maker);
    const tamper = (message: Buffer) => {
      message[offset]! ^= 1;
      return message;
    };
    expect(await rawHandshake(await connectTo(wire), key, { tamper })).toBeUndefined();
    // The original has connected to its target by then; nothing may reach it.
    for (const { data } of got) expect(Buffer.concat(data)).toHaveLength(0);
    if (maker === "ours") expect(got).toHaveLength(0);
  });

  it("1, when forward secrecy is required", async () => {
    const { key, wire } = await withTarget(maker, "-g");
    expect(await rawHandshake(await connectTo(wire), key, { y: 1n })).toBeUndefined();
    expect(await rawHandshake(await connectTo(wire), key, { y: 0n })).toBeDefined();
  });
});
