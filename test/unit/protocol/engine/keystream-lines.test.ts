/** Keystream that is computed ahead for short messages. */
import { type Cipher, createCipheriv, randomBytes } from "node:crypto";
import { describe, expect, it, onTestFinished, vi } from "vitest";
import { createNativeEngine } from "../../../../src/protocol/engine/native.ts";
import { portableEngine } from "../../../../src/protocol/engine/portable.ts";
import { Opener } from "../../../../src/protocol/opener.ts";
import { openedSize, sealedSize } from "../../../../src/protocol/packet.ts";
import { Sealer } from "../../../../src/protocol/sealer.ts";

const newKeys = () => ({ encrypt: randomBytes(32), mac: randomBytes(32) });

function seal(sealer: Sealer, data: Uint8Array): Buffer {
  const out = Buffer.alloc(sealedSize(data.length));
  return out.subarray(0, sealer.seal(data, out));
}

function open(opener: Opener, wire: Uint8Array): Buffer {
  const out = Buffer.alloc(openedSize(wire.length));
  return out.subarray(0, opener.open(wire, out));
}

/** Returns the keystream of a packet, as the protocol defines it. */
function keystreamOf(key: Uint8Array, packet: bigint): Buffer {
  const block = Buffer.alloc(16);
  block.writeBigUInt64BE(packet);
  return createCipheriv("aes-256-ctr", key, block).update(Buffer.alloc(64));
}

/** An engine, with its memory and the number of times that it asked for upkeep. */
function setUp() {
  const engine = createNativeEngine();
  const upkeep = engine.upkeep!;
  const onWork = vi.fn();
  upkeep.onWork = onWork;
  return { engine, upkeep, onWork, memory: Buffer.from(engine.workspace.input.buffer) };
}

describe("short messages", () => {
  it.each([
    ["from the first packet on", 0n],
    ["where the low half of the packet number overflows", 2n ** 32n - 5n],
    ["where it overflows a little later", 2n ** 32n - 13n],
  ])("of any size, among long ones, are sealed and opened as by the portable engine: %s", (_name, first) => {
    for (const isMaintained of [false, true]) {
      const { engine, upkeep } = setUp();
      const keys = newKeys();
      const [sealer, reference] = [new Sealer(engine, keys, first), new Sealer(portableEngine, keys, first)];
      const opener = new Opener(engine, keys, first);
      const sizes = [
        1, 64, 1024, 1025, 2048, 3000, 4096, 4097, 70_000, 1, 2, 3, 4, 5, 6, 7, 8, 9, 1024, 4096,
      ];
      for (const size of [...sizes, ...sizes]) {
        const data = randomBytes(size);
        const wire = seal(sealer, data);
        expect(wire.equals(seal(reference, data))).toBe(true);
        expect(open(opener, wire).equals(data)).toBe(true);
        if (isMaintained) upkeep.refill();
      }
    }
  });

  it("of more connections than there are lines are sealed correctly", () => {
    const { engine } = setUp();
    const sealers = Array.from({ length: 1100 }, () => {
      const keys = newKeys();
      return { sealer: new Sealer(engine, keys), keys };
    });
    for (let round = 0; round < 5; round += 1) {
      const data = randomBytes(10);
      for (const [index, { sealer, keys }] of sealers.entries()) {
        const wire = seal(sealer, data);
        if (index % 50 !== 0 && index < 1020) continue;
        expect(wire.equals(seal(new Sealer(portableEngine, keys, BigInt(round)), data))).toBe(true);
      }
    }
  });

  it("are rejected at the first damaged packet, and those before it are delivered", () => {
    for (const damaged of [0, 1, 2, 3]) {
      const { engine } = setUp();
      const keys = newKeys();
      const data = randomBytes(4096);
      const wire = seal(new Sealer(engine, keys), data);
      wire[damaged * 1060 + 500]! ^= 1;
      const opener = new Opener(engine, keys);
      expect(open(opener, wire).equals(data.subarray(0, damaged * 1024))).toBe(true);
      expect(opener.failure).toMatchObject({ code: "ERR_SPIPED_BAD_MAC", packetNumber: BigInt(damaged) });
      expect(open(opener, wire)).toHaveLength(0);
    }
  });
});

describe("keystream ahead", () => {
  it("is computed after the third short message, and when it is used up", () => {
    const { engine, upkeep, onWork, memory } = setUp();
    const keys = newKeys();
    const sealer = new Sealer(engine, keys);
    const has = (packet: bigint) => memory.includes(keystreamOf(keys.encrypt, packet));
    seal(sealer, Buffer.from("1"));
    seal(sealer, Buffer.from("2"));
    expect([has(2n), onWork.mock.calls.length]).toEqual([false, 0]);
    for (let i = 2; i < 9; i += 1) seal(sealer, Buffer.from("short"));
    expect([has(9n), has(10n)]).toEqual([true, false]);
    seal(sealer, Buffer.from("the last of the line"));
    onWork.mockClear();
    upkeep.refill();
    expect([has(10n), has(17n), has(18n)]).toEqual([true, true, false]);
  });

  it("is wiped when it has not been used for a while, and when the connection ends", () => {
    const { engine, upkeep, memory } = setUp();
    const keys = newKeys();
    const sealer = new Sealer(engine, keys);
    const message = () => seal(sealer, Buffer.from("short"));
    const has = (packet: bigint) => memory.includes(keystreamOf(keys.encrypt, packet));
    const ipad = Buffer.from(keys.mac.map((byte) => byte ^ 0x36));
    for (let i = 0; i < 4; i += 1) message();
    expect(upkeep.releaseUnused()).toBe(true);
    message();
    expect(upkeep.releaseUnused()).toBe(true);
    expect(has(9n)).toBe(true);
    expect(upkeep.releaseUnused()).toBe(false);
    expect(has(9n)).toBe(false);
    for (let i = 0; i < 4; i += 1) message();
    expect([has(9n), memory.includes(ipad)]).toEqual([true, true]);
    sealer.destroy();
    for (let packet = 0n; packet < 20n; packet += 1n) expect(has(packet)).toBe(false);
    expect(memory.includes(ipad)).toBe(false);
    upkeep.refill();
    expect(has(9n)).toBe(false);
  });
});

describe("keystream from OpenSSL", () => {
  it.each([1, 64, 1024, 4096, 5000, 8000, 70_000])("is not left in memory of its own: %i bytes", (size) => {
    const { engine, upkeep } = setUp();
    const keys = newKeys();
    const prototype: Cipher = Object.getPrototypeOf(createCipheriv("aes-256-ecb", randomBytes(32), null));
    const updates = vi.spyOn(prototype, "update");
    onTestFinished(() => void vi.restoreAllMocks());
    const [sealer, opener] = [new Sealer(engine, keys), new Opener(engine, keys)];
    for (let i = 0; i < 20; i += 1) {
      open(opener, seal(sealer, randomBytes(size)));
      upkeep.refill();
    }
    const results = updates.mock.results.map(({ value }) => value as Buffer);
    expect(results.length).toBeGreaterThan(1);
    // A long one is freed, which leaves an empty buffer.
    for (const keystream of results.filter(({ length }) => length > 0))
      expect(keystream.every((byte) => byte === 0)).toBe(true);
  });
});

describe("an idle connection", () => {
  /** Counts the OpenSSL ciphers that are in use, by their calls. */
  function watchCiphers() {
    const prototype: Cipher = Object.getPrototypeOf(createCipheriv("aes-256-ecb", randomBytes(32), null));
    const updates = vi.spyOn(prototype, "update");
    const finals = vi.spyOn(prototype, "final");
    onTestFinished(() => void vi.restoreAllMocks());
    return () => new Set(updates.mock.contexts).size - finals.mock.contexts.length;
  }

  it("has no OpenSSL cipher before its third message, and again none once it has sent nothing for a while", () => {
    const { engine, upkeep } = setUp();
    const inUse = watchCiphers();
    const sealer = new Sealer(engine, newKeys());
    const expected = [0, 0, 1, 1];
    for (const round of [1, 2]) {
      for (const count of expected) {
        seal(sealer, randomBytes(64));
        expect(inUse(), `round ${round}`).toBe(count);
      }
      upkeep.releaseUnused();
      upkeep.releaseUnused();
      expect(inUse()).toBe(0);
    }
    sealer.destroy();
    expect(inUse()).toBe(0);
  });

  it("keeps the cipher while it transfers much", () => {
    const { engine } = setUp();
    const inUse = watchCiphers();
    const sealer = new Sealer(engine, newKeys());
    for (let i = 0; i < 3; i += 1) seal(sealer, randomBytes(100_000));
    expect(inUse()).toBe(1);
    sealer.destroy();
    expect(inUse()).toBe(0);
  });

  it("cannot be used after it was destroyed", () => {
    const { engine } = setUp();
    const sealer = new Sealer(engine, newKeys());
    sealer.destroy();
    expect(() => seal(sealer, randomBytes(10))).toThrow("destroyed");
  });
});
