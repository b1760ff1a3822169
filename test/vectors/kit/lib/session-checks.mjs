/** Checks of handshakes and sessions that are not in the kit's files. */
import { randomBytes } from "node:crypto";
import { Failure, sleep } from "./channel.mjs";
import { expectNoData, expectStatus } from "./expectations.mjs";
import {
  expectEqual,
  expectRefusal,
  finish,
  honest,
  openSession,
  play,
  readPackets,
  Session,
} from "./peer.mjs";
import {
  makeMessage,
  NONCE_BYTES,
  otherSide,
  seal,
  sealAll,
  secretOf,
  sessionKeys,
  toBytes,
} from "./protocol.mjs";
import { KEY_FILE } from "./vectors.mjs";

/** Time in which nothing must arrive, in ms. */
const QUIET_MS = 200;

/** Ways to cut what we send into pieces. */
export const SEGMENTATIONS = {
  "byte by byte": (channel, bytes) => channel.writePieces(Array.from(bytes, (byte) => Buffer.of(byte))),
  "in pieces of random sizes": (channel, bytes) => {
    const pieces = [];
    for (let start = 0; start < bytes.length; ) {
      const size = 1 + Math.floor(Math.random() ** 3 * 700);
      pieces.push(bytes.subarray(start, start + size));
      start += size;
    }
    return channel.writePieces(pieces);
  },
};

/** Offsets in a message or a packet at which it is cut in two. */
export const CUTS = [1, 15, 16, 31, 32, 255, 256, 257, 287, 288, 1023, 1024, 1027, 1028, 1029, 1059];

/** A session whose nonce, message and packets arrive in the given way. */
export async function checkSegmentation(rig, send) {
  const link = await rig.connect();
  const session = await openSession(link, KEY_FILE, { send });
  const data = randomBytes(3000);
  await send(link.wire, sealAll(session.ours, data));
  expectEqual(await session.plain.read(data.length, "data"), data, "data");
  const answer = randomBytes(100);
  session.plain.write(answer);
  expectEqual((await session.receive(answer.length)).data, answer, "answer");
  await session.close();
}

/** Sends the message and the first packets in one piece, which is possible if y is 1. */
export async function checkJoined(rig) {
  const link = await rig.connect();
  const data = randomBytes(5000);
  const keysOf = (nonces) => sessionKeys(secretOf(KEY_FILE), nonces, 1n);
  const madeOf = honest({ weak: true });
  const { nonces } = await play(link, KEY_FILE, madeOf, {
    after: (both) => sealAll(keysOf(both)[otherSide(link.side)], data),
  });
  const [keys] = await finish(link, KEY_FILE, madeOf, nonces);
  const session = new Session(link, await link.plain(), keys);
  expectEqual(await session.plain.read(data.length, "data"), data, "data");
  await session.close();
}

/** The program's nonce comes at once, and nothing follows until it has our message. */
export async function checkNonce(rig) {
  const seen = new Set();
  for (let i = 0; i < 3; i += 1) {
    const { wire, side } = await rig.connect();
    const nonce = await wire.read(NONCE_BYTES, "nonce before ours");
    if (nonce.length < NONCE_BYTES) throw new Failure("closes the connection instead of sending its nonce");
    seen.add(nonce.toString("hex"));
    if (side === "server") wire.write(randomBytes(NONCE_BYTES));
    await sleep(QUIET_MS);
    if (wire.size > 0) throw new Failure(`sends ${wire.size} bytes more before it has what it must check`);
    if (wire.over) throw new Failure("closes the connection");
  }
  if (seen.size < 3) throw new Failure("repeats its nonce");
}

/** Its y is another one in each session. */
export async function checkFreshValues(rig) {
  const seen = new Set();
  for (let i = 0; i < 3; i += 1) {
    const link = await rig.connect();
    const madeOf = honest();
    await play(link, KEY_FILE, madeOf);
    seen.add((await link.wire.read(256, "y")).toString("hex"));
  }
  if (seen.size < 3) throw new Failure("repeats its y");
}

/** Our message of an accepted session is refused in another one. */
export async function checkReplay(rig, note) {
  const nonce = randomBytes(NONCE_BYTES);
  const madeOf = honest();
  const first = await rig.connect();
  const { message } = await play(first, KEY_FILE, madeOf, { nonce });
  if ((await first.wire.read(288, "message")).length < 288) throw new Failure("refuses a correct peer");
  const link = await rig.connect();
  link.wire.write(nonce);
  const peerNonce = await link.wire.read(NONCE_BYTES, "nonce");
  link.wire.write(message);
  const nonces = { [otherSide(link.side)]: nonce, [link.side]: peerNonce };
  await expectRefusal(link, KEY_FILE, nonces, { mayAnswer: link.side === "client", note });
  first.wire.destroy();
  (await first.plain()).destroy();
  if (link.side === "client") await expectNoData(rig, link, note);
}

/** Random bytes instead of a handshake. */
export async function checkGarbage(rig, note) {
  const link = await rig.connect();
  const nonce = randomBytes(NONCE_BYTES);
  link.wire.write(Buffer.concat([nonce, randomBytes(288)]));
  const nonces = { [otherSide(link.side)]: nonce, [link.side]: await link.wire.read(NONCE_BYTES, "nonce") };
  await expectRefusal(link, KEY_FILE, nonces, { mayAnswer: link.side === "client", note });
  await expectNoData(rig, link, note);
}

/** What the program sends: packets of 1 to 1024 bytes whose data is that of the plaintext side. */
export async function checkSizes(rig) {
  const session = await openSession(await rig.connect(), KEY_FILE);
  for (const size of [1, 2, 15, 16, 17, 1023, 1024, 1025, 2048, 2049, 4096, 65_537]) {
    const data = randomBytes(size);
    session.plain.write(data);
    const { data: got, sizes } = await session.receive(size);
    expectEqual(got, data, `data of ${size} bytes`);
    if (sizes.some((each) => each < 1 || each > 1024)) throw new Failure("a packet has an illegal length");
  }
  await session.close();
}

/** Packets of every size, sent by us. */
export async function checkAllSizes(rig) {
  const session = await openSession(await rig.connect(), KEY_FILE);
  const data = randomBytes((1024 * 1025) / 2);
  const sealed = [];
  for (let size = 1, start = 0; size <= 1024; start += size, size += 1)
    sealed.push(seal(session.ours, BigInt(size - 1), data.subarray(start, start + size)));
  session.link.wire.write(Buffer.concat(sealed));
  expectEqual(await session.plain.read(data.length, "data"), data, "data");
  await session.close();
}

/** 2 MiB in both directions at the same time, and then both ends. */
export async function checkBulk(rig) {
  const session = await openSession(await rig.connect(), KEY_FILE);
  const [up, down] = [randomBytes(2 << 20), randomBytes(2 << 20)];
  session.plain.write(up);
  session.send(down);
  const [received, delivered] = await Promise.all([
    session.receive(up.length),
    session.plain.read(down.length, "2 MiB"),
  ]);
  expectEqual(received.data, up, "data to the peer");
  expectEqual(delivered, down, "data of the peer");
  await session.close();
}

/** One direction ends; the other one goes on. */
export async function checkHalfClose(rig, first) {
  const session = await openSession(await rig.connect(), KEY_FILE);
  const { link, plain } = session;
  await session.exchange();
  const ends = { peer: link.wire, plaintext: plain };
  ends[first].end();
  const other = ends[first === "peer" ? "plaintext" : "peer"];
  // The standard output of spipe ends when spipe exits.
  if (first !== "peer" || link.exit === undefined) {
    const rest = await other.readAll("end of the stream on the other side");
    if (rest.length > 0 || !other.ended)
      throw new Failure(`the end arrives as ${rest.length} bytes, ${other.error?.code}`);
  }
  await sleep(QUIET_MS);
  const late = randomBytes(3000);
  if (first === "peer") {
    plain.write(late);
    expectEqual((await session.receive(late.length)).data, late, "data after the half-close");
    plain.end();
  } else {
    session.send(late);
    expectEqual(
      await plain.read(late.length, "data after the half-close"),
      late,
      "data after the half-close",
    );
    link.wire.end();
  }
  const more = await ends[first].readAll("end of the second direction");
  if (more.length > 0 || !ends[first].ended) throw new Failure("the second direction does not end cleanly");
  await expectStatus(link, 0);
}

/** Data that is followed by the end at once arrives as a whole. */
export async function checkDataThenEnd(rig) {
  const session = await openSession(await rig.connect(), KEY_FILE);
  const [up, down] = [randomBytes(100_000), randomBytes(100_000)];
  session.plain.write(up);
  session.plain.end();
  session.send(down);
  session.link.wire.end();
  const [received, delivered] = await Promise.all([
    session.receive(up.length + 1),
    session.plain.readAll("end of the plaintext side"),
  ]);
  expectEqual(received.data, up, "data to the peer");
  expectEqual(delivered, down, "data of the peer");
}

/** A connection that one side resets is closed on the other side. */
export async function checkReset(rig, first) {
  const session = await openSession(await rig.connect(), KEY_FILE);
  await session.exchange();
  const ends = { peer: session.link.wire, plaintext: session.plain };
  ends[first].reset();
  const rest = await ends[first === "peer" ? "plaintext" : "peer"].readAll("end of the other side");
  if (rest.length > 0) throw new Failure(`sends ${rest.length} bytes`);
}

/** Twenty sessions at the same time do not mix. */
export async function checkConcurrent(rig) {
  const links = [];
  const keys = [];
  // A daemon may open connections to its target a few at a time: each handshake begins when its connection is there.
  const openOne = async () => {
    const link = await rig.connect();
    const madeOf = honest();
    const { nonces } = await play(link, KEY_FILE, madeOf);
    const [found] = await finish(link, KEY_FILE, madeOf, nonces);
    links.push(link);
    keys.push(found);
  };
  await Promise.all(Array.from({ length: 20 }, openOne));
  // Which connection to the target belongs to which client is known from the data only.
  const data = links.map((link, i) => {
    const bytes = randomBytes(5000);
    bytes.writeUInt32BE(i);
    link.wire.write(sealAll(keys[i][otherSide(link.side)], bytes));
    return bytes;
  });
  await Promise.all(
    links.map(async (link) => {
      const plain = await link.plain();
      const got = await plain.read(5000, "data");
      const i = got.readUInt32BE();
      if (data[i] === undefined) throw new Failure("delivers other data");
      expectEqual(got, data[i], "data");
      plain.write(got);
    }),
  );
  await Promise.all(
    links.map(async (link, i) => {
      const { data: echoed } = await readPackets(link.wire, keys[i][link.side], 5000);
      expectEqual(echoed, data[i], "echo");
    }),
  );
}

/** A peer that stops in the handshake is disconnected; the daemon has `-o 1`. */
export async function checkTimeout(rig, size) {
  const link = await rig.connect();
  const { wire, side } = link;
  const nonce = randomBytes(NONCE_BYTES);
  wire.write(nonce.subarray(0, size));
  if (size > NONCE_BYTES) {
    const nonces = { [otherSide(side)]: nonce, [side]: await wire.read(NONCE_BYTES, "nonce") };
    const message = makeMessage(secretOf(KEY_FILE), otherSide(side), nonces, toBytes(1n));
    wire.write(message.subarray(0, size - NONCE_BYTES));
  }
  await wire.readAll("end of the connection");
}

/** Two programs under test with each other: data in both directions, and a half-close. */
export async function checkPair(pair) {
  const { local, target, exit } = await pair.connect();
  const [up, down] = [randomBytes(1 << 20), randomBytes(1 << 20)];
  local.write(up);
  target.write(down);
  const [atTarget, atLocal] = await Promise.all([
    target.read(up.length, "data to the target"),
    local.read(down.length, "data of the target"),
  ]);
  expectEqual(atTarget, up, "data to the target");
  expectEqual(atLocal, down, "data of the target");
  local.end();
  if ((await target.readAll("end at the target")).length > 0 || !target.ended)
    throw new Failure("the end does not arrive");
  const late = randomBytes(5000);
  target.write(late);
  target.end();
  expectEqual(await local.readAll("end of the target's data"), late, "data after the half-close");
  const status = await (exit?.() ?? 0);
  if (status !== 0) throw new Failure(`spipe exits with ${status}`);
}
