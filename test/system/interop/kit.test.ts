/** Runs the vector kit's cases against `spiped -d` of both implementations: each must have the outcome in the kit. */
import { expect, it } from "vitest";
import {
  connectTo,
  freeAddress,
  type Implementation,
  keyFile,
  startSpiped,
  until,
} from "../../support/programs.ts";
import { P, type RawSession, rawHandshake, rawPacket } from "../../support/raw-peer.ts";
import { describeIfInstalled } from "../../support/requirements.ts";
import { serve } from "../../support/servers.ts";
import packets from "../../vectors/kit/packets.json" with { type: "json" };

/** Starts a daemon; `got` has the data that its target receives from each connection, and whether that has closed. */
async function withTarget(maker: Implementation, ...options: string[]) {
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

/** Returns a packet of the kit, made with the keys of a live session. */
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

describeIfInstalled("spiped").each(["c", "ours"] as const)("%s: the kit's packets", (maker) => {
  // A live session begins at packet 0, and cannot choose its padding.
  const usable = packets.filter(
    ({ first_packet, made_of, receives }) =>
      first_packet === "0" &&
      receives !== "" &&
      made_of.every((one) => !("padding" in one) && Number(one.number) < 100),
  );

  it.each(usable.map((vector) => [vector.name, vector] as const))("%s", async (_name, vector) => {
    const { key, wire, got } = await withTarget(maker);
    const socket = await connectTo(wire);
    const session = await rawHandshake(socket, key);
    const stream = Buffer.concat(vector.made_of.map((described) => packetOf(session!, described)));
    socket.resume();
    socket.end(stream.subarray(0, "cut" in vector ? vector.cut : undefined));
    await until(() => got.length === 1 && got[0]!.over);
    const delivered = Buffer.concat(got[0]!.data).toString("hex");
    // Data in flight to the target when a bad packet arrives may be lost: the target receives a prefix.
    expect(vector.delivers.startsWith(delivered)).toBe(true);
    if (vector.outcome === "clean") expect(delivered).toBe(vector.delivers);
  });
});

describeIfInstalled("spiped").each(["c", "ours"] as const)("%s: a client's y and MAC", (maker) => {
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
    // For p-1 the result depends on the server's exponent; only check that it answers.
    expect(answered).toBe(accepted ?? true);
  });

  it.each([
    ["y", 0],
    ["the end of y", 255],
    ["the MAC", 256],
    ["the end of the MAC", 287],
  ])("a flipped bit in %s is rejected", async (_name, offset) => {
    const { key, wire, got } = await withTarget(maker);
    const tamper = (message: Buffer) => {
      message[offset]! ^= 1;
      return message;
    };
    expect(await rawHandshake(await connectTo(wire), key, { tamper })).toBeUndefined();
    // Tarsnap's spiped has connected to its target by then; no data may reach it.
    for (const { data } of got) expect(Buffer.concat(data)).toHaveLength(0);
    if (maker === "ours") expect(got).toHaveLength(0);
  });

  it("y = 1 is rejected when forward secrecy is required", async () => {
    const { key, wire } = await withTarget(maker, "-g");
    expect(await rawHandshake(await connectTo(wire), key, { y: 1n })).toBeUndefined();
    expect(await rawHandshake(await connectTo(wire), key, { y: 0n })).toBeDefined();
  });
});
