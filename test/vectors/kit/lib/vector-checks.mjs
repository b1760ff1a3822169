/** Plays the cases of the kit's files to programs under test. */
import { Failure } from "./channel.mjs";
import { expectNoData, expectStatus } from "./expectations.mjs";
import { expectEqual, expectRefusal, openSession, play } from "./peer.mjs";
import { NONCE_BYTES, otherSide, seal } from "./protocol.mjs";
import { KEY_FILE, NONCES } from "./vectors.mjs";

const fromHex = (hex) => Buffer.from(hex, "hex");

/** A case of handshakes.json. */
export async function checkHandshake(rig, vector, note) {
  const link = await rig.connect();
  const nonce = NONCES[otherSide(vector.side)];
  const { made_of: madeOf, weak, outcome } = vector;
  if (outcome === "session") {
    const session = await openSession(link, KEY_FILE, { madeOf, weak, nonce });
    await session.exchange();
    await session.close();
    await expectStatus(link, 0);
  } else {
    const { nonces } = await play(link, KEY_FILE, madeOf, { nonce });
    const mayAnswer = vector.side === "client" && !(madeOf.cut < NONCE_BYTES);
    await expectRefusal(link, KEY_FILE, nonces, { mayAnswer, note });
    await expectNoData(rig, link, note);
    await expectStatus(link, 1);
  }
}

/** A case of packets.json. */
export async function checkPackets(rig, vector, note) {
  const link = await rig.connect();
  const session = await openSession(link, KEY_FILE);
  const { plain, ours, theirs } = session;
  const stream = Buffer.concat(
    vector.made_of.map(({ number, data, length, padding, flip, foreign }) => {
      const packet = seal(foreign ? theirs : ours, BigInt(number), fromHex(data), { length, padding });
      if (flip !== undefined) packet[flip] ^= 1;
      return packet;
    }),
  ).subarray(0, vector.cut);
  link.wire.write(stream);
  const isBad = vector.outcome.startsWith("bad");
  // A damaged packet must close the connection by itself.
  if (!isBad) link.wire.end();
  // The standard output of spipe ends when spipe exits.
  if (link.exit !== undefined && vector.outcome === "clean") plain.end();
  const delivered = await plain.readAll("end of the plaintext side");
  const expected = fromHex(vector.delivers);
  if (!expected.subarray(0, delivered.length).equals(delivered))
    throw new Failure(`delivers ${delivered.length} bytes which are not the first of those it should`);
  if (vector.outcome === "clean") {
    expectEqual(delivered, expected, "data");
    if (!plain.ended) throw new Failure(`a clean end arrives as ${plain.error?.code}`);
    plain.end();
  } else if (delivered.length < expected.length) {
    note("loses good packets that arrive together with what is wrong");
  }
  if (vector.outcome === "cut") {
    if (plain.ended) note("takes a stream that ends inside a packet for a complete one");
    plain.end();
  }
  const rest = await link.wire.readAll("end of the connection");
  if (rest.length > 0) throw new Failure(`sends ${rest.length} bytes`);
  await expectStatus(link, isBad ? 1 : 0);
}

/** A `spipe` with a key file of the kit. */
export async function checkKeyFile(rig, { contents: hex, repeat }, note) {
  const contents = fromHex(hex.repeat(repeat));
  const link = await rig.connect().catch((error) => {
    if (contents.length > 0 || !(error instanceof Failure)) throw error;
  });
  if (link === undefined) {
    note("refuses an empty key file");
    return;
  }
  const session = await openSession(link, contents);
  await session.exchange();
  await session.close();
}
