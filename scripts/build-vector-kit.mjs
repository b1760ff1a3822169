/**
 * Writes test/vectors/kit: cases that any implementation of the protocol can be held to, as plain data. The bytes come
 * from the model below, which is written for this purpose alone, with BigInt arithmetic and Node's own primitives; it
 * shares nothing with src/. Everything is derived from fixed strings, so that the files never change by themselves.
 *
 *     node scripts/build-vector-kit.mjs
 */
import { createCipheriv, createHash, createHmac, getDiffieHellman } from "node:crypto";
import { writeFileSync } from "node:fs";

const P = BigInt(`0x${getDiffieHellman("modp14").getPrime("hex")}`);
const sha256 = (bytes) => createHash("sha256").update(bytes).digest();
const hmac = (key, ...parts) => createHmac("sha256", key).update(Buffer.concat(parts)).digest();
const seed = (text, size) =>
  Buffer.concat(Array.from({ length: Math.ceil(size / 32) }, (_, i) => sha256(`${text} ${i}`))).subarray(
    0,
    size,
  );
const toBytes = (value) => Buffer.from(value.toString(16).padStart(512, "0"), "hex");
const toNumber = (bytes) => BigInt(`0x${bytes.toString("hex")}`);

function power(base, exponent) {
  let result = 1n;
  for (let e = exponent, b = base % P; e > 0n; e >>= 1n, b = (b * b) % P)
    if (e & 1n) result = (result * b) % P;
  return result;
}

/** PBKDF2 with one iteration, in blocks of 32 bytes. */
const derive = (key, salt, blocks) =>
  Array.from({ length: blocks }, (_, i) => hmac(key, salt, Buffer.from([0, 0, 0, i + 1])));

const keyFile = seed("key file", 32);
const otherKeyFile = seed("another key file", 32);
const K = sha256(keyFile);
const NONCE = { client: seed("client's nonce", 32), server: seed("server's nonce", 32) };
const X = { client: seed("client's exponent", 32), server: seed("server's exponent", 32) };
const exponent = (x) => 2n ** 258n + toNumber(x);
const other = { client: "server", server: "client" };

/** The message of a side: y and its tag. */
function message(side, y, { key = K, nonces = NONCE } = {}) {
  const keys = derive(key, Buffer.concat([nonces.client, nonces.server]), 2);
  const bytes = toBytes(y);
  return Buffer.concat([bytes, hmac(keys[side === "client" ? 0 : 1], bytes)]);
}

const publicValue = (side, weak) => (weak ? 1n : power(2n, exponent(X[side])));

/** Session keys as the side under test sees them. */
function session(side, shared) {
  const [ec, hc, es, hs] = derive(K, Buffer.concat([NONCE.client, NONCE.server, toBytes(shared)]), 4).map(
    (k) => k.toString("hex"),
  );
  const directions = { client: { encrypt: ec, mac: hc }, server: { encrypt: es, mac: hs } };
  return { seal: directions[side], open: directions[other[side]] };
}

const handshakes = [];

/** What the peer sends, nonce and message, from its description. */
function peerStream(side, madeOf) {
  const peer = other[side];
  const { y, mac_key_file, mac_nonce, mac_side, zero_mac, flip, mask, cut } = madeOf;
  const nonces = { ...NONCE, ...(mac_nonce === undefined ? {} : { [side]: Buffer.from(mac_nonce, "hex") }) };
  const key = mac_key_file === undefined ? K : sha256(Buffer.from(mac_key_file, "hex"));
  const signed = message(mac_side ?? peer, toNumber(Buffer.from(y, "hex")), { key, nonces });
  if (zero_mac) signed.fill(0, 256);
  const bytes = Buffer.concat([NONCE[peer], signed]);
  if (flip !== undefined) bytes[flip] ^= mask;
  return bytes.subarray(0, cut);
}

/**
 * A case: the side under test gets what `madeOf` describes.
 *
 * @param peerValue - the peer's y; made from its exponent if undefined.
 */
function handshake(name, side, { weak = false, strict = false, peerValue, madeOf = {}, outcome }) {
  const peer = other[side];
  const y = peerValue ?? publicValue(peer, false);
  const described = {
    y: toBytes(y).toString("hex"),
    ...(peerValue === undefined ? { private_x: X[peer].toString("hex") } : {}),
    ...madeOf,
  };
  const receives = peerStream(side, described);
  const seen = receives.length >= 32 ? receives.subarray(0, 32) : NONCE[peer];
  const own = message(side, publicValue(side, weak), { nonces: { ...NONCE, [peer]: seen } });
  const answers = side === "client" ? receives.length >= 32 : outcome === "session";
  const shared = weak ? 1n : power(y, exponent(X[side]));
  handshakes.push({
    name: `${side}: ${name}`,
    side,
    key_file: keyFile.toString("hex"),
    weak,
    require_forward_secrecy: strict,
    nonce: NONCE[side].toString("hex"),
    private_x: X[side].toString("hex"),
    made_of: described,
    receives: receives.toString("hex"),
    sends: Buffer.concat([NONCE[side], answers ? own : Buffer.alloc(0)]).toString("hex"),
    outcome,
    ...(outcome === "session" ? { session: session(side, shared) } : {}),
  });
}

const flipped = (offset, mask = 1) => ({ madeOf: { flip: offset, mask } });

for (const side of ["server", "client"]) {
  const bad = { outcome: "bad tag" };
  handshake("both strong", side, { outcome: "session" });
  handshake("this side weak", side, { weak: true, outcome: "session" });
  handshake("the peer weak", side, { peerValue: 1n, outcome: "session" });
  handshake("both weak", side, { weak: true, peerValue: 1n, outcome: "session" });
  handshake("strict, the peer strong", side, { strict: true, outcome: "session" });
  handshake("strict, the peer weak", side, { strict: true, peerValue: 1n, outcome: "no forward secrecy" });
  handshake("strict, the peer sends 0", side, { strict: true, peerValue: 0n, outcome: "session" });
  handshake("strict, the peer sends p-1", side, { strict: true, peerValue: P - 1n, outcome: "session" });
  for (const [name, y] of [
    ["0", 0n],
    ["p-1", P - 1n],
    ["2", 2n],
    ["p-2", P - 2n],
  ])
    handshake(`the peer sends ${name}`, side, { peerValue: y, outcome: "session" });
  for (const [name, y] of [
    ["p", P],
    ["p+1", P + 1n],
    ["2^2048-1", 2n ** 2048n - 1n],
  ])
    handshake(`the peer sends ${name}`, side, { peerValue: y, outcome: "out of range" });
  handshake("the peer sends p with a bad tag", side, { peerValue: P, ...flipped(319), ...bad });
  for (const [where, offset] of [
    ["first byte of y", 32],
    ["middle of y", 160],
    ["last byte of y", 287],
    ["first byte of the tag", 288],
    ["last byte of the tag", 319],
  ])
    handshake(`flipped bit in the ${where}`, side, { ...flipped(offset), ...bad });
  handshake("flipped high bit in the last byte of the tag", side, { ...flipped(319, 0x80), ...bad });
  handshake("the nonce changed on its way", side, { ...flipped(0), ...bad });
  handshake("the peer has another key", side, {
    madeOf: { mac_key_file: otherKeyFile.toString("hex") },
    ...bad,
  });
  handshake("the peer's message of another session", side, {
    madeOf: { mac_nonce: seed("old nonce", 32).toString("hex") },
    ...bad,
  });
  handshake("this side's own message reflected", side, {
    peerValue: publicValue(side, false),
    madeOf: { mac_side: side },
    ...bad,
  });
  handshake("an empty tag", side, {
    madeOf: { zero_mac: true },
    ...bad,
  });
  for (const size of [0, 1, 31, 32, 33, 160, 287, 288, 319])
    handshake(`cut after ${size} bytes`, side, {
      madeOf: { cut: size },
      outcome: "incomplete",
    });
}

const packets = [];
const KEYS = { encrypt: seed("packet encryption", 32), mac: seed("packet authentication", 32) };
const OTHERS = {
  encrypt: seed("the other direction's encryption", 32),
  mac: seed("the other direction's authentication", 32),
};

/** A packet from its description. */
function packet({ number, data, length, padding, flip: flipped, foreign }) {
  const keys = foreign ? OTHERS : KEYS;
  const plain = Buffer.alloc(1028, padding ?? 0);
  Buffer.from(data, "hex").copy(plain);
  plain.writeUInt32BE(length ?? data.length / 2, 1024);
  const block = Buffer.alloc(16);
  block.writeBigUInt64BE(BigInt(number));
  const ciphertext = createCipheriv("aes-256-ctr", keys.encrypt, block).update(plain);
  const bytes = Buffer.concat([ciphertext, hmac(keys.mac, ciphertext, block.subarray(0, 8))]);
  if (flipped !== undefined) bytes[flipped] ^= 1;
  return bytes;
}

/**
 * A case: the stream that `made_of` describes, cut to `cut` bytes, arrives at an opener that expects packet `first`.
 *
 * @param good - how many packets are delivered.
 */
function stream(name, madeOf, { outcome = "clean", first = 0n, good, cut }) {
  const described = madeOf.map((one, i) => ({
    number: (one.number ?? first + BigInt(i)).toString(),
    ...one,
    data: one.data.toString("hex"),
  }));
  for (const one of described) one.number = String(one.number);
  const bytes = Buffer.concat(described.map(packet)).subarray(0, cut);
  const delivered = Buffer.concat(madeOf.slice(0, good ?? madeOf.length).map(({ data }) => data));
  packets.push({
    name,
    encrypt: KEYS.encrypt.toString("hex"),
    mac: KEYS.mac.toString("hex"),
    first_packet: first.toString(),
    made_of: described,
    ...(cut === undefined ? {} : { cut }),
    receives: bytes.toString("hex"),
    delivers: delivered.toString("hex"),
    outcome,
    ...(outcome === "clean" ? {} : { at_packet: (first + BigInt(good)).toString() }),
  });
}

const text = (size) => seed(`data of ${size} bytes`, size);
const one = { data: text(40) };
const two = { data: text(1024) };
for (const size of [1, 2, 3, 16, 511, 1023, 1024])
  stream(`one packet of ${size} bytes`, [{ data: text(size) }], {});
for (const length of [0, 1025, 1026, 65536, 2 ** 24, 2 ** 31, 2 ** 32 - 1])
  stream(`a length of ${length}`, [{ data: text(1024), length }], { outcome: "bad length", good: 0 });
stream("a bad length after a good packet", [one, { data: text(10), length: 0 }], {
  outcome: "bad length",
  good: 1,
});
stream("padding that is not zero", [{ data: text(10), padding: 0xff }], {});
stream(
  "packets of many sizes",
  [1, 1024, 1, 512, 1024, 7].map((size) => ({ data: text(size) })),
  {},
);
stream("nothing at all", [], {});
for (const [where, offset] of [
  ["data", 0],
  ["padding", 900],
  ["length", 1024],
  ["end of the length", 1027],
  ["tag", 1028],
  ["end of the tag", 1059],
]) {
  stream(`flipped bit in the ${where}`, [{ ...one, flip: offset }], { outcome: "bad tag", good: 0 });
  stream(`flipped bit in the ${where} of the second packet`, [two, { ...one, flip: offset }, two], {
    outcome: "bad tag",
    good: 1,
  });
}
stream("a packet replayed", [one, { ...one, number: 0n }], { outcome: "bad tag", good: 1 });
stream(
  "two packets exchanged",
  [
    { ...one, number: 1n },
    { ...two, number: 0n },
  ],
  { outcome: "bad tag", good: 0 },
);
stream("a packet missing", [one, { ...two, number: 2n }], { outcome: "bad tag", good: 1 });
stream("the first packet missing", [{ ...two, number: 1n }], { outcome: "bad tag", good: 0 });
stream("a packet of the other direction", [{ ...one, foreign: true }], { outcome: "bad tag", good: 0 });
stream("a packet of the other direction, later", [two, { ...one, foreign: true }], {
  outcome: "bad tag",
  good: 1,
});
for (const cut of [1, 16, 1023, 1024, 1027, 1028, 1059])
  stream(`cut after ${cut} bytes`, [two], { outcome: "cut", good: 0, cut });
for (const cut of [1061, 1600, 2119])
  stream(`cut after ${cut} bytes, in the second packet`, [two, one], { outcome: "cut", good: 1, cut });
stream("cut between two packets, which looks like an end", [two, { data: Buffer.alloc(0), length: 1 }], {
  good: 1,
  cut: 1060,
});
for (const first of [
  2n ** 32n - 2n,
  2n ** 32n - 1n,
  2n ** 32n,
  2n ** 40n,
  2n ** 53n - 1n,
  2n ** 53n,
  2n ** 53n + 1n,
])
  stream(`from packet number ${first} on`, [one, two, one], { first });
stream("a number that is equal in its low 32 bits", [{ ...one, number: 2n ** 32n }], {
  outcome: "bad tag",
  good: 0,
});
stream("a number that is equal in its high 32 bits", [{ ...one, number: 2n ** 32n + 1n }], {
  outcome: "bad tag",
  good: 0,
  first: 2n ** 32n,
});
stream("a number that a double takes for the same", [{ ...one, number: 2n ** 53n + 1n }], {
  outcome: "bad tag",
  good: 0,
  first: 2n ** 53n,
});

const keyFiles = [
  ["empty", ""],
  ["one zero byte", "00"],
  ["a line feed", "0a"],
  ["text with a line feed, which counts", Buffer.from("secret\n").toString("hex")],
  ["the same text without", Buffer.from("secret").toString("hex")],
  ...[31, 32, 33, 55, 56, 63, 64, 65].map((size) => [
    `${size} bytes`,
    seed(`key of ${size}`, size).toString("hex"),
  ]),
].map(([name, contents]) => ({
  name,
  contents,
  repeat: 1,
  K: sha256(Buffer.from(contents, "hex")).toString("hex"),
}));
keyFiles.push({
  name: "1 MiB of one byte",
  contents: "61",
  repeat: 2 ** 20,
  K: sha256(Buffer.alloc(2 ** 20, "a")).toString("hex"),
});

for (const [name, cases] of Object.entries({ "key-files": keyFiles, handshakes, packets })) {
  writeFileSync(
    new URL(`../test/vectors/kit/${name}.json`, import.meta.url),
    `${JSON.stringify(cases, null, 1)}\n`,
  );
  console.log(`${name}: ${cases.length} cases`);
}
