import { randomBytes } from "node:crypto";
import { describe, expect, it } from "vitest";
import { PRIME } from "../../../src/protocol/diffie-hellman.ts";
import { ClientHandshake, HANDSHAKE_SIZE, ServerHandshake } from "../../../src/protocol/handshake.ts";
import { authenticateValue, type SessionKeys } from "../../../src/protocol/key-schedule.ts";
import { HandshakeError } from "../../../src/protocol/protocol-error.ts";
import { Secret } from "../../../src/protocol/secret.ts";
import { hex, modes, type PartyVector, vectors } from "../../vectors/vectors.ts";

const secret = Secret.fromKeyFile(hex(vectors.key_file));
const nonceClient = hex(vectors.nonce_client);
const nonceServer = hex(vectors.nonce_server);

/** Returns a source of randomness that yields the nonce, then the exponent, of a vector. */
const fixedRandom = (nonce: Uint8Array, party: PartyVector) => {
  const values = [nonce, hex(party.private_x ?? "")];
  return () => Uint8Array.from(values.shift()!);
};

const flat = (keys: SessionKeys) =>
  [keys.seal.encrypt, keys.seal.mac, keys.open.encrypt, keys.open.mac].map((k) =>
    Buffer.from(k).toString("hex"),
  );

/** Splits a handshake in several ways: whole, byte by byte, and once at each of some offsets. */
function splits(bytes: Uint8Array): Uint8Array[][] {
  const whole = [bytes];
  const single = Array.from(bytes, (byte) => Uint8Array.of(byte));
  const halves = [1, 31, 32, 33, 287, 288, 319].map((at) => [bytes.subarray(0, at), bytes.subarray(at)]);
  return [whole, single, ...halves];
}

describe.each(modes)("the vectors of mode %s", (_name, mode) => {
  const clientSends = Buffer.concat([nonceClient, hex(mode.client.message_288)]);
  const serverSends = Buffer.concat([nonceServer, hex(mode.server.message_288)]);

  it("are what a client sends and derives, however the server's bytes are split", () => {
    for (const chunks of splits(serverSends)) {
      const client = new ClientHandshake(secret, {
        weak: mode.client.weak,
        random: fixedRandom(nonceClient, mode.client),
      });
      const sent = [client.nonce];
      let session: SessionKeys | undefined;
      for (const chunk of chunks) {
        const progress = client.receive(chunk);
        expect(progress.consumed).toBe(chunk.length);
        if (progress.send) sent.push(progress.send);
        session ??= progress.session;
      }
      expect(Buffer.concat(sent)).toEqual(clientSends);
      expect(flat(session!)).toEqual([mode.E_C, mode.H_C, mode.E_S, mode.H_S]);
    }
  });

  it("are what a server sends and derives, however the client's bytes are split", () => {
    for (const chunks of splits(clientSends)) {
      const server = new ServerHandshake([secret], {
        weak: mode.server.weak,
        random: fixedRandom(nonceServer, mode.server),
      });
      let verified: Secret | undefined;
      for (const chunk of chunks) verified ??= server.receive(chunk).verified;
      expect(verified).toBe(secret);
      const { send, session } = server.respond();
      expect(Buffer.concat([server.nonce, send])).toEqual(serverSends);
      expect(flat(session)).toEqual([mode.E_S, mode.H_S, mode.E_C, mode.H_C]);
    }
  });
});

/** Returns the message of a client that has the key but chooses its public value freely. */
function forgedMessage(server: ServerHandshake, y: Uint8Array): Uint8Array {
  const nonces = { client: nonceClient, server: server.nonce };
  return Buffer.concat([nonceClient, y, authenticateValue(secret, nonces, "client", y)]);
}

const value = (n: bigint) => hex(n.toString(16).padStart(512, "0"));
const p = BigInt(`0x${Buffer.from(PRIME).toString("hex")}`);

describe("a server", () => {
  it("does not consume bytes after the handshake", () => {
    const server = new ServerHandshake([secret]);
    const message = forgedMessage(server, value(4n));
    expect(server.receive(Buffer.concat([message, randomBytes(2000)])).consumed).toBe(HANDSHAKE_SIZE);
  });

  it.each([
    ["0", 0n],
    ["1", 1n],
    ["p-1", p - 1n],
    ["2", 2n],
  ])("accepts a value of %s", (_name, y) => {
    const server = new ServerHandshake([secret]);
    expect(server.receive(forgedMessage(server, value(y))).verified).toBe(secret);
    server.respond();
  });

  it.each([
    ["p", p],
    ["p+1", p + 1n],
    ["2^2048-1", 2n ** 2048n - 1n],
  ])("rejects a value of %s", (_name, y) => {
    const server = new ServerHandshake([secret]);
    expect(() => server.receive(forgedMessage(server, value(y)))).toThrow(
      expect.objectContaining({ code: "ERR_SPIPED_HANDSHAKE_RANGE" }),
    );
  });

  it("rejects only the value 1 when it requires forward secrecy", () => {
    for (const [y, refused] of [
      [0n, false],
      [1n, true],
      [2n, false],
      [p - 1n, false],
    ] as const) {
      const server = new ServerHandshake([secret], { requireForwardSecrecy: true });
      const receive = () => server.receive(forgedMessage(server, value(y)));
      if (refused) expect(receive).toThrow(expect.objectContaining({ code: "ERR_SPIPED_HANDSHAKE_WEAK" }));
      else expect(receive().verified).toBe(secret);
    }
  });

  it("rejects a message with any single bit flipped, in the value or in its MAC", () => {
    for (let bit = 0; bit < 288 * 8; bit += 7) {
      const server = new ServerHandshake([secret]);
      const message = forgedMessage(server, value(4n));
      message[32 + (bit >> 3)]! ^= 1 << (bit & 7);
      expect(() => server.receive(message)).toThrow(HandshakeError);
    }
  });

  it("does not respond before the client is authenticated", () => {
    const server = new ServerHandshake([secret]);
    server.receive(nonceClient);
    expect(() => server.respond()).toThrow("not been authenticated");
  });

  it("finds which of many keys a client has", () => {
    const others = Array.from({ length: 20 }, () => Secret.fromKeyFile(randomBytes(32)));
    const server = new ServerHandshake([...others, secret]);
    expect(server.receive(forgedMessage(server, value(4n))).verified).toBe(secret);
  });
});

describe("a client", () => {
  it("is rejected by a server with another key", () => {
    const client = new ClientHandshake(secret);
    const server = new ServerHandshake([Secret.fromKeyFile(randomBytes(32))]);
    expect(() => server.receive(Buffer.concat([client.nonce, client.receive(server.nonce).send!]))).toThrow(
      expect.objectContaining({ code: "ERR_SPIPED_HANDSHAKE_MAC" }),
    );
  });

  it("rejects its own message if that is reflected", () => {
    const client = new ClientHandshake(secret);
    const { send } = client.receive(client.nonce);
    expect(() => client.receive(send!)).toThrow(
      expect.objectContaining({ code: "ERR_SPIPED_HANDSHAKE_MAC" }),
    );
  });
});
