/** The vector kit: every case whole and byte by byte, and the packets on both engines. */
import { describe, expect, it } from "vitest";
import { createNativeEngine } from "../../../src/protocol/engine/native.ts";
import { portableEngine } from "../../../src/protocol/engine/portable.ts";
import { ClientHandshake, ServerHandshake } from "../../../src/protocol/handshake.ts";
import type { SessionKeys } from "../../../src/protocol/key-schedule.ts";
import { Opener } from "../../../src/protocol/opener.ts";
import { openedSize } from "../../../src/protocol/packet.ts";
import { HandshakeError } from "../../../src/protocol/protocol-error.ts";
import { Secret } from "../../../src/protocol/secret.ts";
import handshakes from "../../vectors/kit/handshakes.json" with { type: "json" };
import keyFiles from "../../vectors/kit/key-files.json" with { type: "json" };
import packets from "../../vectors/kit/packets.json" with { type: "json" };
import { hex } from "../../vectors/vectors.ts";

const toHex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex");
const whole = (bytes: Uint8Array) => [bytes];
const single = (bytes: Uint8Array) => Array.from(bytes, (byte) => Uint8Array.of(byte));

const OUTCOMES: Record<string, string> = {
  ERR_SPIPED_HANDSHAKE_MAC: "bad tag",
  ERR_SPIPED_HANDSHAKE_RANGE: "out of range",
  ERR_SPIPED_HANDSHAKE_WEAK: "no forward secrecy",
  ERR_SPIPED_BAD_MAC: "bad tag",
  ERR_SPIPED_BAD_LENGTH: "bad length",
  ERR_SPIPED_TRUNCATED: "cut",
};

type Handshake = (typeof handshakes)[number];

/** Runs one side of a handshake; returns the bytes sent, the outcome and the session keys. */
function runHandshake(vector: Handshake, chunks: readonly Uint8Array[]) {
  const values = [hex(vector.nonce), hex(vector.private_x)];
  const secret = Secret.fromKeyFile(hex(vector.key_file));
  const options = {
    weak: vector.weak,
    requireForwardSecrecy: vector.require_forward_secrecy,
    random: () => values.shift()!,
  };
  const sent: Uint8Array[] = [];
  let session: SessionKeys | undefined;
  let outcome = "incomplete";
  try {
    if (vector.side === "client") {
      const client = new ClientHandshake(secret, options);
      sent.push(client.nonce);
      for (const chunk of chunks) {
        const progress = client.receive(chunk);
        if (progress.send !== undefined) sent.push(progress.send);
        session ??= progress.session;
      }
    } else {
      const server = new ServerHandshake([secret], options);
      sent.push(server.nonce);
      for (const chunk of chunks) {
        if (server.receive(chunk).verified === undefined) continue;
        const answer = server.respond();
        sent.push(answer.send);
        session = answer.session;
      }
    }
    if (session !== undefined) outcome = "session";
  } catch (error) {
    if (!(error instanceof HandshakeError)) throw error;
    outcome = OUTCOMES[error.code]!;
  }
  const keys = session && {
    seal: { encrypt: toHex(session.seal.encrypt), mac: toHex(session.seal.mac) },
    open: { encrypt: toHex(session.open.encrypt), mac: toHex(session.open.mac) },
  };
  return { sends: toHex(Buffer.concat(sent)), outcome, session: keys };
}

describe("the kit's handshakes", () => {
  it.each(handshakes.map((vector) => [vector.name, vector] as const))("%s", (_name, vector) => {
    const { sends, outcome, session } = vector;
    for (const cut of [whole, single]) {
      const result = runHandshake(vector, cut(hex(vector.receives)));
      expect(result).toMatchObject({ outcome, session });
      // A side may reject its peer before it has sent everything.
      if (outcome === "session" || outcome === "incomplete") expect(result.sends).toBe(sends);
      else expect(sends.startsWith(result.sends)).toBe(true);
    }
  });
});

describe.each([createNativeEngine(), portableEngine])("the kit's packets on the $name engine", (engine) => {
  it.each(packets.map((vector) => [vector.name, vector] as const))("%s", (_name, vector) => {
    for (const cut of [whole, single]) {
      const keys = { encrypt: hex(vector.encrypt), mac: hex(vector.mac) };
      const opener = new Opener(engine, keys, BigInt(vector.first_packet));
      const delivered: Uint8Array[] = [];
      for (const chunk of cut(hex(vector.receives))) {
        const out = Buffer.alloc(openedSize(chunk.length));
        delivered.push(out.subarray(0, opener.open(chunk, out)));
      }
      const failure = opener.end();
      expect({
        delivers: toHex(Buffer.concat(delivered)),
        outcome: failure === undefined ? "clean" : OUTCOMES[failure.code],
        at_packet: failure?.packetNumber.toString(),
      }).toEqual({ delivers: vector.delivers, outcome: vector.outcome, at_packet: vector.at_packet });
    }
  });
});

describe("the kit's key files", () => {
  it.each(keyFiles.map((vector) => [vector.name, vector] as const))(
    "%s",
    (_name, { contents, repeat, K }) => {
      const secret = Secret.fromKeyFile(Buffer.from(contents.repeat(repeat), "hex"));
      expect(toHex(Secret.reveal(secret))).toBe(K);
    },
  );
});

it("the kit has at least 120 cases with unique names", () => {
  const names = [...handshakes, ...packets, ...keyFiles].map(({ name }) => name);
  expect(names.length).toBeGreaterThanOrEqual(120);
  expect(new Set(names).size).toBe(names.length);
});
