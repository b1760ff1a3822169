import { createCipheriv, createHmac, randomBytes } from "node:crypto";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { createNativeEngine } from "../../../src/protocol/engine/native.ts";
import { portableEngine } from "../../../src/protocol/engine/portable.ts";
import { Opener } from "../../../src/protocol/opener.ts";
import { openedSize, PACKET_SIZE, sealedSize } from "../../../src/protocol/packet.ts";
import { Sealer } from "../../../src/protocol/sealer.ts";
import { hex, modes, vectors } from "../../vectors/vectors.ts";

const engines = [createNativeEngine(), portableEngine];
const [native] = engines as [(typeof engines)[0]];
const SLOW = process.env.SLOW === "1";

const newKeys = () => ({ encrypt: randomBytes(32), mac: randomBytes(32) });
type Keys = ReturnType<typeof newKeys>;

function seal(sealer: Sealer, data: Uint8Array): Buffer {
  const out = Buffer.alloc(sealedSize(data.length));
  expect(sealer.seal(data, out)).toBe(out.length);
  return out;
}

/** Passes the chunks to the opener; returns the data, and the failure or undefined at the end of the stream. */
function open(opener: Opener, chunks: Iterable<Uint8Array>) {
  const data: Buffer[] = [];
  for (const chunk of chunks) {
    const out = Buffer.alloc(openedSize(chunk.length));
    data.push(out.subarray(0, opener.open(chunk, out)));
  }
  return { data: Buffer.concat(data), failure: opener.end() };
}

/** Checks that a stream was valid and had exactly this data. `toEqual` would take seconds. */
function expectData(result: ReturnType<typeof open>, data: Buffer): void {
  expect(result.failure).toBeUndefined();
  expect(result.data.equals(data)).toBe(true);
}

function* cut(bytes: Uint8Array, size: number) {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

/** A simple reference implementation of the packet layer. */
function plainSeal(keys: Keys, data: Uint8Array, first = 0n): Buffer {
  const packets: Buffer[] = [];
  for (const piece of cut(data, 1024)) {
    const padded = Buffer.alloc(1028);
    padded.set(piece);
    padded.writeUInt32BE(piece.length, 1024);
    packets.push(plainPacket(keys, padded, first + BigInt(packets.length)));
  }
  return Buffer.concat(packets);
}

function plainPacket(keys: Keys, padded: Uint8Array, number: bigint): Buffer {
  const block = Buffer.alloc(16);
  block.writeBigUInt64BE(number);
  const ciphertext = createCipheriv("aes-256-ctr", keys.encrypt, block).update(padded);
  const tag = createHmac("sha256", keys.mac).update(ciphertext).update(block.subarray(0, 8)).digest();
  return Buffer.concat([ciphertext, tag]);
}

describe.each(engines)("the $name engine", (engine) => {
  describe.each(modes)("with the vectors of mode %s", (_name, mode) => {
    const keysOf = (direction: string): Keys =>
      direction === "client_to_server"
        ? { encrypt: Buffer.from(hex(mode.E_C)), mac: Buffer.from(hex(mode.H_C)) }
        : { encrypt: Buffer.from(hex(mode.E_S)), mac: Buffer.from(hex(mode.H_S)) };

    it("seals them", () => {
      for (const packet of mode.packets) {
        const sealer = new Sealer(engine, keysOf(packet.direction), BigInt(packet.packet_number));
        expect(seal(sealer, hex(packet.plaintext))).toEqual(Buffer.from(packet.packet_1060, "hex"));
      }
    });

    it("opens them, whole and byte by byte", () => {
      for (const packet of mode.packets) {
        for (const size of [1, 1060]) {
          const opener = new Opener(engine, keysOf(packet.direction), BigInt(packet.packet_number));
          const { data, failure } = open(opener, cut(hex(packet.packet_1060), size));
          expect(failure).toBeUndefined();
          expect(data.toString("hex")).toBe(packet.plaintext);
        }
      }
    });
  });

  it.each(["strong_c2s_pn0_length_0", "strong_c2s_pn0_length_1025"] as const)(
    "rejects the vector %s",
    (name) => {
      const [, strong] = modes.find(([mode]) => mode === "strong")!;
      const keys = { encrypt: hex(strong.E_C), mac: hex(strong.H_C) };
      const { data, failure } = open(new Opener(engine, keys), [hex(vectors.rejects[name])]);
      expect(data).toHaveLength(0);
      expect(failure).toMatchObject({ code: "ERR_SPIPED_BAD_LENGTH", packetNumber: 0n });
    },
  );

  it("accepts lengths from 1 to 1024 with any padding, and no others", () => {
    const keys = newKeys();
    for (const length of [0, 1, 2, 1023, 1024, 1025, 2 ** 16, 2 ** 31, 2 ** 32 - 1]) {
      const padded = randomBytes(1028);
      padded.writeUInt32BE(length, 1024);
      const { data, failure } = open(new Opener(engine, keys), [plainPacket(keys, padded, 0n)]);
      if (length >= 1 && length <= 1024) expect(data).toEqual(padded.subarray(0, length));
      else expect(failure).toMatchObject({ code: "ERR_SPIPED_BAD_LENGTH" });
    }
  });

  it("rejects a packet with any single bit flipped, and delivers exactly the data before it", () => {
    const keys = newKeys();
    const data = randomBytes(3000);
    const stream = seal(new Sealer(engine, keys), data);
    const step = engine.name === "native" ? 1 : 13;
    for (let bit = 0; bit < PACKET_SIZE * 8; bit += step) {
      const damaged = Buffer.from(stream);
      damaged[PACKET_SIZE + (bit >> 3)]! ^= 1 << (bit & 7);
      const result = open(new Opener(engine, keys), [damaged]);
      expect(result.data.equals(data.subarray(0, 1024))).toBe(true);
      expect(result.failure).toMatchObject({ code: "ERR_SPIPED_BAD_MAC", packetNumber: 1n });
    }
  });

  it("gives the same result however the stream is split, whether it is valid or not", () => {
    const keys = newKeys();
    const data = randomBytes(150 * 1024);
    const stream = seal(new Sealer(engine, keys), data);
    const damaged = Buffer.from(stream);
    damaged[100 * PACKET_SIZE + 17]! ^= 1;
    const sizes =
      engine.name === "native" ? [1, 7, 1059, 1060, 1061, 4096, 65_536, stream.length] : [1059, 65_536];
    for (const size of sizes) {
      expectData(open(new Opener(engine, keys), cut(stream, size)), data);
      const result = open(new Opener(engine, keys), cut(damaged, size));
      expect(result.data.equals(data.subarray(0, 100 * 1024))).toBe(true);
      expect(result.failure).toMatchObject({ code: "ERR_SPIPED_BAD_MAC", packetNumber: 100n });
    }
  });

  it("rejects packets that are replayed, reordered, preceded by a gap, or made with another MAC key", () => {
    const keys = newKeys();
    const [a, b, c] = [...cut(seal(new Sealer(engine, keys), randomBytes(3072)), PACKET_SIZE)] as [
      Buffer,
      Buffer,
      Buffer,
    ];
    for (const [stream, at] of [
      [[a, a], 1n],
      [[b, a], 0n],
      [[a, c], 1n],
      [[c], 0n],
    ] as const) {
      expect(open(new Opener(engine, keys), stream).failure).toMatchObject({ packetNumber: at });
    }
    const other = { encrypt: keys.encrypt, mac: randomBytes(32) };
    expect(open(new Opener(engine, other), [a]).failure).toMatchObject({ packetNumber: 0n });
  });

  it("reports an end inside a packet as truncation, at every offset", () => {
    const keys = newKeys();
    const stream = seal(new Sealer(engine, keys), randomBytes(2000));
    for (let length = 0; length <= stream.length; length += length < 1000 ? 331 : 1) {
      const { failure } = open(new Opener(engine, keys), [stream.subarray(0, length)]);
      if (length % PACKET_SIZE === 0) expect(failure).toBeUndefined();
      else expect(failure).toMatchObject({ code: "ERR_SPIPED_TRUNCATED" });
    }
  });

  it("counts packets across 2^32 and 2^53, and throws before a number would be reused", () => {
    const keys = newKeys();
    for (const first of [2n ** 32n - 2n, 2n ** 32n - 64n, 2n ** 53n - 2n, 2n ** 63n - 1n, 2n ** 64n - 4n]) {
      const data = randomBytes(4 * 1024);
      const stream = seal(new Sealer(engine, keys, first), data);
      expect(stream).toEqual(plainSeal(keys, data, first));
      expect(open(new Opener(engine, keys, first), [stream])).toEqual({ data, failure: undefined });
    }
    const last = new Sealer(engine, keys, 2n ** 64n - 2n);
    expect(() => seal(last, randomBytes(3000))).toThrow("exhausted");
    seal(last, randomBytes(2000));
    expect(() => seal(last, randomBytes(1))).toThrow("exhausted");
    const opener = new Opener(engine, keys, 2n ** 64n - 1n);
    expect(() => open(opener, [randomBytes(2 * PACKET_SIZE)])).toThrow("exhausted");
  });

  it("works on unaligned views", () => {
    const keys = newKeys();
    const data = randomBytes(2500);
    const shifted = Buffer.alloc(data.length + 3);
    data.copy(shifted, 3);
    const out = Buffer.alloc(sealedSize(data.length) + 5);
    new Sealer(engine, keys).seal(shifted.subarray(3), out.subarray(5));
    expect(out.subarray(5)).toEqual(plainSeal(keys, data));
    expect(open(new Opener(engine, keys), [out.subarray(5)]).data).toEqual(data);
  });

  it("keeps interleaved connections separate", () => {
    const sessions = Array.from({ length: 5 }, () => {
      const keys = newKeys();
      return { sealer: new Sealer(engine, keys), opener: new Opener(engine, keys) };
    });
    for (let round = 0; round < 50; round += 1) {
      const { sealer, opener } = sessions[round % 3 === 0 ? 0 : round % 5]!;
      const data = randomBytes(1 + ((round * 777) % 9000));
      expectData(open(opener, [seal(sealer, data)]), data);
    }
  });

  it("throws once destroyed or if the output is too small, and copies its keys", () => {
    const keys = newKeys();
    const sealer = new Sealer(engine, keys);
    const opener = new Opener(engine, keys);
    const expected = plainSeal(keys, Buffer.from("x"));
    keys.encrypt.fill(0);
    keys.mac.fill(0);
    expect(() => sealer.seal(Buffer.alloc(1025), Buffer.alloc(2119))).toThrow(RangeError);
    expect(() => opener.open(Buffer.alloc(1060), Buffer.alloc(1023))).toThrow(RangeError);
    expect(seal(sealer, Buffer.from("x"))).toEqual(expected);
    sealer.destroy();
    opener.destroy();
    expect(() => sealer.seal(Buffer.alloc(1), Buffer.alloc(1060))).toThrow("destroyed");
    expect(() => opener.open(Buffer.alloc(1060), Buffer.alloc(1024))).toThrow("destroyed");
  });
});

describe("the two engines", () => {
  it("produce the same bytes as the reference, for any sizes and packet numbers", () => {
    const number = fc.oneof(
      fc.bigInt(0n, 2n ** 63n),
      fc.constantFrom(0n, 2n ** 32n - 1n, 2n ** 32n, 2n ** 53n - 1n, 2n ** 53n),
    );
    const sizes = fc.array(fc.integer({ min: 0, max: 5000 }), { minLength: 1, maxLength: 4 });
    fc.assert(
      fc.property(sizes, number, fc.integer({ min: 1, max: 3000 }), (lengths, first, chunk) => {
        const keys = newKeys();
        const writes = lengths.map((length) => randomBytes(length));
        let next = first;
        const expected = Buffer.concat(
          writes.map((data) => {
            const sealed = plainSeal(keys, data, next);
            next += BigInt(sealed.length / PACKET_SIZE);
            return sealed;
          }),
        );
        for (const engine of engines) {
          const sealer = new Sealer(engine, keys, first);
          expect(Buffer.concat(writes.map((data) => seal(sealer, data))).equals(expected)).toBe(true);
          const { data, failure } = open(new Opener(engine, keys, first), cut(expected, chunk));
          expect(failure).toBeUndefined();
          expect(data.equals(Buffer.concat(writes))).toBe(true);
        }
      }),
      { numRuns: SLOW ? 2000 : 40 },
    );
  });
});

describe("the native engine's workspace", () => {
  it("holds no key after destroy()", () => {
    const keys = newKeys();
    const sealer = new Sealer(native, keys);
    seal(sealer, randomBytes(64 * 1024));
    const memory = Buffer.from(native.workspace.input.buffer);
    const ipad = Buffer.from(keys.mac.map((byte) => byte ^ 0x36));
    const opad = Buffer.from(keys.mac.map((byte) => byte ^ 0x5c));
    expect(memory.includes(ipad)).toBe(true);
    sealer.destroy();
    for (const secret of [ipad, opad, keys.mac, keys.encrypt]) expect(memory.includes(secret)).toBe(false);
  });
});

describe.each(engines)("the $name engine", (engine) => {
  it("opens more than a batch after a partial packet", () => {
    const keys = newKeys();
    const data = randomBytes(200_000);
    const wire = seal(new Sealer(engine, keys), data);
    for (const first of [1, 500, PACKET_SIZE - 1]) {
      const chunks = [wire.subarray(0, first), wire.subarray(first)];
      expectData(open(new Opener(engine, keys), chunks), data);
    }
  });

  it("keeps the keys of many connections separate", () => {
    const pairs = Array.from({ length: 5 }, () => {
      const keys = newKeys();
      return { sealer: new Sealer(engine, keys), opener: new Opener(engine, keys) };
    });
    for (let round = 0; round < 3; round += 1) {
      const data = pairs.map(() => randomBytes(1 + Math.floor(Math.random() * 5000)));
      const sealed = pairs.map(({ sealer }, i) => seal(sealer, data[i]!));
      for (const [i, { opener }] of pairs.entries()) {
        const out = Buffer.alloc(openedSize(sealed[i]!.length));
        expect(out.subarray(0, opener.open(sealed[i]!, out))).toEqual(data[i]);
      }
    }
  });
});
