/**
 * The handshake's state machines and the opener. The input encodes how the stream is split.
 *
 *     byte 0      the state machine: 0 server, 1 client, 2 opener; +4 weak, +8 requires forward secrecy; for an opener
 *                 +4: the stream is lengths and data, which are sealed first, so that mutations pass the MAC check
 *     byte 1      the size of the pieces, 0 for the whole stream
 *     the rest    the stream
 *
 * The target throws if a state machine throws an unexpected error, or if the result depends on how the stream is split
 * or on the engine.
 */
import type { Engine } from "../../../src/protocol/engine/engine.ts";
import { createNativeEngine } from "../../../src/protocol/engine/native.ts";
import { portableEngine } from "../../../src/protocol/engine/portable.ts";
import { ClientHandshake, type HandshakeOptions, ServerHandshake } from "../../../src/protocol/handshake.ts";
import { Opener } from "../../../src/protocol/opener.ts";
import { openedSize } from "../../../src/protocol/packet.ts";
import { HandshakeError } from "../../../src/protocol/protocol-error.ts";
import { Sealer } from "../../../src/protocol/sealer.ts";
import { Secret } from "../../../src/protocol/secret.ts";
import type { FuzzTarget } from "../target.ts";

const secret = Secret.fromKeyFile(Buffer.from("a key for the fuzzer"));
const keys = () => ({ encrypt: new Uint8Array(32).fill(1), mac: new Uint8Array(32).fill(2) });

/** Returns a source of bytes that are the same in each run. */
function fixed(): (size: number) => Uint8Array {
  let count = 0;
  return (size) => new Uint8Array(size).fill(++count);
}

/** @param engines - the engines whose results must be equal. */
export function makeTarget(engines: readonly Engine[] = [createNativeEngine(), portableEngine]): FuzzTarget {
  function* pieces(stream: Buffer, size: number) {
    if (size === 0) yield stream;
    else for (let at = 0; at < stream.length; at += size) yield stream.subarray(at, at + size);
  }

  function runHandshake(kind: number, options: HandshakeOptions, stream: Buffer, size: number): string {
    let consumed = 0;
    try {
      if (kind === 0) {
        const server = new ServerHandshake([secret], options);
        for (const piece of pieces(stream, size)) {
          const progress = server.receive(piece);
          consumed += progress.consumed;
          if (progress.verified === undefined) continue;
          const { send, session } = server.respond();
          return `${consumed} ${Buffer.from(send).toString("base64")} ${Buffer.from(session.seal.mac).toString("hex")}`;
        }
      } else {
        const client = new ClientHandshake(secret, options);
        for (const piece of pieces(stream, size)) {
          const progress = client.receive(piece);
          consumed += progress.consumed;
          if (progress.session !== undefined)
            return `${consumed} ${Buffer.from(progress.session.seal.mac).toString("hex")}`;
        }
      }
      return `more ${consumed}`;
    } catch (error) {
      if (!(error instanceof HandshakeError)) throw error;
      return error.code;
    }
  }

  function open(engine: Engine, stream: Buffer, size: number): string {
    const opener = new Opener(engine, keys());
    const data: Buffer[] = [];
    for (const piece of pieces(stream, size)) {
      const out = Buffer.alloc(openedSize(piece.length));
      data.push(out.subarray(0, opener.open(piece, out)));
    }
    const failure = opener.end();
    opener.destroy();
    return `${Buffer.concat(data).toString("base64")} ${failure?.code} ${failure?.packetNumber}`;
  }

  /** Seals pieces of data, each preceded by its length, to packets; appends the remaining bytes unchanged. */
  function sealed(stream: Buffer): Buffer {
    const sealer = new Sealer(engines[0]!, keys());
    const packets: Buffer[] = [];
    let at = 0;
    while (at + 2 < stream.length) {
      const length = stream.readUInt16BE(at) % 1025;
      const data = stream.subarray(at + 2, at + 2 + length);
      at += 2 + length;
      if (data.length === 0) break;
      const out = Buffer.alloc(1060);
      sealer.seal(data, out);
      packets.push(out);
    }
    return Buffer.concat([...packets, stream.subarray(at)]);
  }

  function run(input: Buffer): void {
    if (input.length < 2) return;
    const [what, size] = input as unknown as [number, number];
    const kind = what % 4;
    let stream: Buffer = Buffer.from(input.subarray(2));
    if (kind < 2) {
      const options = () => ({
        weak: (what & 4) !== 0,
        requireForwardSecrecy: (what & 8) !== 0,
        random: fixed(),
      });
      const results = [size, 0].map((cut) => runHandshake(kind, options(), stream, cut));
      if (results[0] !== results[1])
        throw new Error(`cuts of ${size} bytes give ${results[0]}, the whole ${results[1]}`);
      return;
    }
    if ((what & 4) !== 0) stream = sealed(stream);
    const results = engines.flatMap((engine) => [size, 0].map((cut) => open(engine, stream, cut)));
    if (new Set(results).size !== 1) throw new Error(`results differ: ${results.join("; ")}`);
  }

  return { seeds: makeSeeds(engines[0]!), words: [], run };
}

/** Returns initial inputs: one that succeeds for each state machine, and some that end early. */
function makeSeeds(engine: Engine): Buffer[] {
  const found: Buffer[] = [];
  for (const flags of [0, 4, 8]) {
    const client = new ClientHandshake(secret, { weak: flags === 4, random: fixed() });
    const server = new ServerHandshake([secret], { weak: flags === 4, random: fixed() });
    const { send } = client.receive(server.nonce);
    server.receive(Buffer.concat([client.nonce, send!]));
    found.push(Buffer.concat([Buffer.from([flags, 7]), client.nonce, send!]));
    found.push(Buffer.concat([Buffer.from([flags + 1, 100]), server.nonce, server.respond().send]));
  }
  const sealer = new Sealer(engine, keys());
  const out = Buffer.alloc(3 * 1060);
  sealer.seal(Buffer.alloc(2500, "data"), out);
  found.push(
    Buffer.concat([Buffer.from([2, 13]), out]),
    Buffer.from([2, 0]),
    Buffer.concat([Buffer.from([2, 0]), out.subarray(0, 1500)]),
  );
  found.push(
    Buffer.concat([
      Buffer.from([6, 200, 0, 5]),
      Buffer.from("hello"),
      Buffer.from([4, 0]),
      Buffer.alloc(1024, 1),
    ]),
  );
  return found;
}
