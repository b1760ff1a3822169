/**
 * An implementation of the protocol that shares nothing with ours, as a correct peer of our programs and as one that
 * does one thing wrong. The same tests with Tarsnap's programs check the peer itself.
 */
import { createHash, randomBytes } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import type { Socket } from "node:net";
import { join, resolve } from "node:path";
import { expect, it } from "vitest";
import {
  commandOf,
  connectTo,
  freeAddress,
  type Implementation,
  keyFile,
  run,
  start,
  startSpiped,
  type TestAddress,
  temporaryDirectory,
  until,
  untilListening,
} from "../../support/programs.ts";
import { describeIfInstalled } from "../../support/requirements.ts";
import { serve } from "../../support/servers.ts";

const PEER = ["python3", "-I", resolve("test/support/independent-peer.py")];
const VECTORS = resolve("test/vectors/vectors.json");

const NONCE = 32;
const HANDSHAKE = 320;
const PACKET = 1060;

/** What the peer reports about a connection. */
interface Report {
  handshake: string;
  ended: "eof" | "reset" | "timeout" | "reset by this side";
  bytes_sent: number;
  bytes_received: number;
  data_received: number;
  sha256: string;
  packets: number;
  largest_packet: number;
  trailing_bytes: number;
  error: string | null;
}

/** The part of the protocol that the peer plays: a client of `spiped -d`, or a server for `spiped -e`. */
type Role = "client" | "server";

const sha256 = (data: Uint8Array) => createHash("sha256").update(data).digest("hex");

/** The peer, in a process that runs one connection after the other. */
class Peer {
  readonly process = start([...PEER, "batch"]);
  #answered = 0;

  /** Starts a connection. Resolves with the report when the connection is over. */
  async run(
    command: readonly string[],
    address: TestAddress,
    key: string,
    options: readonly string[] = [],
    data: Uint8Array = Buffer.alloc(0),
  ): Promise<Report> {
    const words = [...command, "--address", address.text, "--key", key, ...options];
    const line = JSON.stringify({ arguments: words, data: Buffer.from(data).toString("base64") });
    this.process.child.stdin!.write(`${line}\n`);
    const lines = () => this.process.stdout().toString().split("\n").slice(0, -1);
    const { child } = this.process;
    await until(() => lines().length > this.#answered || child.exitCode !== null);
    const answer = lines()[this.#answered++];
    if (answer === undefined) throw new Error(`the peer failed: ${this.process.stderr()}`);
    return JSON.parse(answer);
  }
}

/** What the plaintext end of a tunnel has received, and how its connection ended. */
interface Plaintext {
  data: Buffer;
  end: "end" | "reset";
}

/** Sends `answer` on a plaintext connection. Resolves when it is closed. */
function answerOn(socket: Socket, answer: Uint8Array, when: "at once" | "at the end"): Promise<Plaintext> {
  const chunks: Buffer[] = [];
  let end: Plaintext["end"] = "reset";
  socket.on("data", (chunk) => chunks.push(chunk));
  if (when === "at once") socket.end(answer);
  socket.once("end", () => {
    end = "end";
    if (when === "at the end") socket.end(answer);
  });
  return new Promise((closed) =>
    socket.once("close", () => closed({ data: Buffer.concat(chunks), end: socket.errored ? "reset" : end })),
  );
}

interface Exchange {
  readonly options?: readonly string[];
  /** From the peer to the plaintext end. */
  readonly data?: Uint8Array;
  /** From the plaintext end to the peer. */
  readonly answer?: Uint8Array;
  readonly when?: "at once" | "at the end";
}

interface Outcome {
  report: Report;
  /** Undefined if there was no connection to the target. */
  plaintext: Plaintext | undefined;
  /** The reason for which the connection was closed, from our daemon's log. */
  reason: string | undefined;
}

/** Starts a daemon between the peer and a plaintext end. */
async function startTunnel(maker: Implementation, role: Role, ...options: string[]) {
  const key = keyFile();
  const peer = new Peer();
  const wire = await freeAddress();
  const source = role === "client" ? wire : await freeAddress();
  let current: Exchange = {};
  const answer = (socket: Socket) =>
    answerOn(socket, current.answer ?? Buffer.alloc(0), current.when ?? "at the end");
  const accepted: Promise<Plaintext>[] = [];
  const target = role === "client" ? await serve((socket) => accepted.push(answer(socket))) : undefined;
  const logging = maker === "ours" ? ["--log-level", "info"] : [];
  const daemon = await startSpiped(
    maker,
    role === "client" ? "-d" : "-e",
    source,
    target?.address ?? wire,
    key,
    ...logging,
    ...options,
  );
  const reasons = () => [...daemon.stderr().matchAll(/ ended after .* decrypted: (.*)\n/g)].map((m) => m[1]);

  /** Runs a connection, or with `replay` a connection and its repetition, until the daemon has closed it. */
  async function connect(next: Exchange = {}, command: readonly string[] = [role]): Promise<Outcome> {
    current = next;
    const logged = reasons().length;
    const running = peer.run(command, wire, key, next.options, next.data);
    const count = command[0] === "replay" ? 2 : 1;
    if (role === "server") {
      await untilListening(peer.process, wire);
      for (let i = 0; i < count; i += 1) {
        await accepted.at(-1);
        accepted.push(answer(await connectTo(source)));
      }
    }
    const report = await running;
    if (maker === "ours") await until(() => reasons().length === logged + count);
    return { report, plaintext: await accepted.pop(), reason: reasons().at(-1) };
  }

  /** Checks that a correct connection carries data both ways. */
  async function expectHonestConnection(options: readonly string[] = [], size = 2500, name = "honest") {
    const [data, answer] = [randomBytes(size), randomBytes(size)];
    const { report, plaintext } = await connect({ options, data, answer });
    expect(report, name).toMatchObject({
      handshake: "complete",
      ended: "eof",
      data_received: size,
      sha256: sha256(answer),
      trailing_bytes: 0,
      error: null,
    });
    expect(plaintext, name).toEqual({ data, end: "end" });
    expect(report.bytes_received, name).toBe(HANDSHAKE + PACKET * report.packets);
    expect(report.largest_packet, name).toBeLessThanOrEqual(1024);
  }

  return { daemon, key, connect, expectHonestConnection };
}

/** Three packets of 100 bytes. */
const DATA = randomBytes(300);
const THREE_PACKETS = ["--sizes", "100"];

const describeIfAllInstalled = describeIfInstalled("python3", "spiped", "spipe");

const BOTH_ROLES: Role[] = ["client", "server"];
const MAKERS: Implementation[] = ["ours", "c"];
const PAIRS = MAKERS.flatMap((maker) => BOTH_ROLES.map((role) => [maker, role] as const));

describeIfInstalled("python3")("the independent peer", () => {
  it("agrees with the test vectors", async () => {
    const { status, stdout, stderr } = await run([...PEER, "vectors", VECTORS]);
    expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
    const { checked, mismatches } = JSON.parse(stdout.toString());
    expect(mismatches).toEqual([]);
    expect(checked).toBeGreaterThan(100);
  });

  it("names the vectors with which it does not agree", async () => {
    const vectors = JSON.parse(readFileSync(VECTORS, "utf8"));
    vectors.modes.strong.y_sc = `00${vectors.modes.strong.y_sc.slice(2)}`;
    vectors.modes.weak.packets[0].packet_1060 = `${vectors.modes.weak.packets[0].packet_1060.slice(2)}00`;
    const changed = join(temporaryDirectory(), "vectors.json");
    writeFileSync(changed, JSON.stringify(vectors));
    const { status, stdout } = await run([...PEER, "vectors", changed]);
    expect(status).toBe(1);
    expect(JSON.parse(stdout.toString()).mismatches).toEqual([
      "strong y_sc at the client",
      "strong y_sc at the server",
      "weak client_to_server 0 packet",
      "weak client_to_server 0 opened",
    ]);
  });
});

describeIfAllInstalled("a correct peer", () => {
  it.each(PAIRS)(
    "%s: as a %s, exchanges data of any size after each kind of handshake",
    async (maker, role) => {
      for (const weak of [[], ["-f"]]) {
        const tunnel = await startTunnel(maker, role, ...weak);
        for (const options of [[], ["--weak"]]) {
          const name = `daemon ${weak}, peer ${options}`;
          for (const size of [0, 1, 1025, 100_000]) await tunnel.expectHonestConnection(options, size, name);
        }
      }
    },
  );

  // All sizes from 1 to 1024 make 524,800 bytes.
  it.each(PAIRS)("%s: as a %s, sends packets of all sizes", async (maker, role) => {
    const tunnel = await startTunnel(maker, role);
    await tunnel.expectHonestConnection(["--sizes", "all"], 524_800);
  });

  it.each(PAIRS)("%s: as a %s, may do what the protocol leaves open", async (maker, role) => {
    const tunnel = await startTunnel(maker, role);
    const cases = [
      ["--wait-for-nonce"],
      ["--writes", "bytes", ...THREE_PACKETS],
      ["--nonce", "00".repeat(32)],
      ["--nonce", "00".repeat(32)],
      ["--nonce", "reflected"],
      ["--public-value", "0"],
      ["--public-value", "1"],
      ["--packet-fault", "padding", "--fault-at", "0"],
      ...(role === "client"
        ? [["--weak", "--writes", "joined"]]
        : [["--writes", "joined"], ["--eager"], ["--eager", "--weak"]]),
    ];
    for (const options of cases) await tunnel.expectHonestConnection(options, 2500, options.join(" "));
  });

  it.each(PAIRS)("%s: as a %s, may send data after the other direction has ended", async (maker, role) => {
    const tunnel = await startTunnel(maker, role);
    const answer = randomBytes(5000);
    const options = ["--wait-for-eof"];
    const { report, plaintext } = await tunnel.connect({ options, data: DATA, answer, when: "at once" });
    expect(report).toMatchObject({ ended: "eof", sha256: sha256(answer), error: null });
    expect(plaintext).toEqual({ data: DATA, end: "end" });
  });

  it.each(PAIRS)("%s: as a %s, may send y = p - 1", async (maker, role) => {
    const tunnel = await startTunnel(maker, role);
    // Whether the shared value is 1 or p - 1 depends on the other side's exponent: 8 connections test both.
    for (let i = 0; i < 8; i += 1) {
      const answer = randomBytes(100);
      const options = ["--public-value", "p-1", "--wait-for-data"];
      const { report, plaintext } = await tunnel.connect({ options, data: DATA, answer, when: "at once" });
      expect(report).toMatchObject({ ended: "eof", sha256: sha256(answer), error: null });
      expect(plaintext).toEqual({ data: DATA, end: "end" });
    }
  });

  it.each(MAKERS)("%s: serves spipe", async (maker) => {
    const [peer, address, key] = [new Peer(), await freeAddress(), keyFile()];
    for (const options of [[], ["-f"]]) {
      for (const size of [0, 100_000]) {
        const [data, input] = [randomBytes(size), randomBytes(size)];
        const report = peer.run(["server"], address, key, ["--wait-for-eof"], data);
        await untilListening(peer.process, address);
        const command = [...commandOf(maker, "spipe"), "-t", address.text, "-k", key, ...options];
        const { status, stdout, stderr } = await run(command, input);
        expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
        expect(sha256(stdout)).toBe(sha256(data));
        expect(await report).toMatchObject({ ended: "eof", sha256: sha256(input), error: null });
      }
    }
  });
});

/** A wrong handshake: the peer's options, and patterns of what our daemon logs for a client and for a server. */
type HandshakeFault = readonly [options: string, asClient: string, asServer: string];

const WRONG_KEY = ["handshake: wrong key", "handshake: wrong key"] as const;
const OUT_OF_RANGE = ["handshake: value out of range", "handshake: value out of range"] as const;
const CLOSED = ["handshake: peer closed", "handshake: peer closed"] as const;
// A reset may arrive before the connection is reported as open.
const RESET = ["handshake: peer closed", "handshake: peer closed|target: reset"] as const;

const MESSAGE_FAULTS: HandshakeFault[] = [
  ...["mac-random", "mac-zero", "mac-other-side", "mac-without-key", "mac-of-hash"].map(
    (fault) => [`--message-fault ${fault}`, ...WRONG_KEY] as const,
  ),
  // The first and last bits of y and of its MAC.
  ...[0, 2047, 2048, 2303].map((bit) => [`--flip-message-bit ${bit}`, ...WRONG_KEY] as const),
  ...["p", "p+1", "max"].map((value) => [`--public-value ${value}`, ...OUT_OF_RANGE] as const),
];

const CUTS: HandshakeFault[] = [
  ...[0, 1, 31, 32, 33, 287, 288, 319].map((size) => [`--cut-handshake ${size}`, ...CLOSED] as const),
  ...[0, 32, 319].map((size) => [`--cut-handshake ${size} --end rst`, ...RESET] as const),
];

describeIfAllInstalled("a peer with a wrong handshake", () => {
  async function expectRejected(
    tunnel: Awaited<ReturnType<typeof startTunnel>>,
    maker: Implementation,
    role: Role,
    [options, asClient, asServer]: HandshakeFault,
  ) {
    const name = `${maker}, ${role}: ${options}`;
    const split = options.split(" ");
    const { report, plaintext, reason } = await tunnel.connect({ options: split, data: DATA, answer: DATA });
    // A client has sent its nonce, and its message if it has the server's nonce.
    const cut = /--cut-handshake (\d+)/.exec(options)?.[1];
    const sent = role === "client" || (cut !== undefined && Number(cut) < NONCE) ? NONCE : HANDSHAKE;
    // If this side ends before it has read what the other side sends, that may be lost.
    if (cut === undefined) expect(report.bytes_received, name).toBe(sent);
    else expect(report.bytes_received, name).toBeLessThanOrEqual(sent);
    expect(report.data_received, name).toBe(0);
    expect(report.ended, name).not.toBe("timeout");
    expect(plaintext?.data ?? [], name).toHaveLength(0);
    if (maker === "c") return;
    expect(reason, name).toMatch(new RegExp(`^(${role === "client" ? asClient : asServer})$`));
    if (role === "client") expect(plaintext, name).toBeUndefined();
    await tunnel.expectHonestConnection([], 100, `after ${name}`);
  }

  it.each(PAIRS)("%s: is rejected as a %s for its message, and gets nothing more", async (maker, role) => {
    const tunnel = await startTunnel(maker, role);
    for (const fault of MESSAGE_FAULTS) await expectRejected(tunnel, maker, role, fault);
  });

  it.each(PAIRS)("%s: is rejected as a %s that ends in the handshake, at any place", async (maker, role) => {
    const tunnel = await startTunnel(maker, role);
    for (const fault of CUTS) await expectRejected(tunnel, maker, role, fault);
  });

  it.each(PAIRS)("%s: is disconnected as a %s that stops in the handshake", async (maker, role) => {
    const tunnel = await startTunnel(maker, role, "-o", "1");
    const timeout = "handshake: timeout";
    await expectRejected(tunnel, maker, role, ["--cut-handshake 319 --end hold", timeout, timeout]);
  });

  it.each(MAKERS)("%s: is rejected as a server that reflects the client's message", async (maker) => {
    const tunnel = await startTunnel(maker, "server");
    await expectRejected(tunnel, maker, "server", ["--message-fault reflected", "", WRONG_KEY[1]]);
    const options = "--message-fault reflected --nonce reflected";
    await expectRejected(tunnel, maker, "server", [options, "", WRONG_KEY[1]]);
  });

  it.each(PAIRS)(
    "%s: is rejected as a %s without forward secrecy by -g, which accepts y = 0",
    async (maker, role) => {
      const tunnel = await startTunnel(maker, role, "-g");
      const reason = "handshake: peer offers no forward secrecy";
      for (const options of ["--weak", "--public-value 1"])
        await expectRejected(tunnel, maker, role, [options, reason, reason]);
      await tunnel.expectHonestConnection(["--public-value", "0"]);
    },
  );

  it.each(PAIRS)("%s: is rejected as a %s that repeats an accepted connection", async (maker, role) => {
    const tunnel = await startTunnel(maker, role);
    const { report, plaintext, reason } = await tunnel.connect({ data: DATA }, ["replay", role]);
    expect(report).toMatchObject({ handshake: "replayed", bytes_sent: HANDSHAKE + PACKET });
    // A client may check the server's message, which is here early, before it has computed its own.
    expect(role === "client" ? [NONCE] : [NONCE, HANDSHAKE]).toContain(report.bytes_received);
    // Our spiped -d connects to the target only for the first connection.
    if (role === "server" || maker === "c") expect(plaintext!.data).toHaveLength(0);
    else expect(plaintext).toEqual({ data: DATA, end: "end" });
    if (maker === "c") return;
    expect(reason).toBe(WRONG_KEY[0]);
    await tunnel.expectHonestConnection();
  });
});

/** A wrong stream of packets: the peer's options, the number of packets delivered, and a pattern of the logged reason. */
type PacketFault = readonly [options: string, delivered: number, reason: string];

const badMac = (fault: string, number = 1): PacketFault => [
  `--packet-fault ${fault}`,
  number,
  `peer: bad MAC at packet ${number}`,
];

const FORGERIES: PacketFault[] = [
  // The first and last bits of the data, of its length, and of the MAC.
  ...[0, 799, 8191, 8192, 8223, 8224, 8479].map((bit) => badMac(`flip:${bit}`)),
  ...[
    "random",
    "zeros",
    "mac-zero",
    "mac-without-number",
    "mac-of-previous-number",
    "other-direction",
    "other-session",
    "swapped-keys",
    "shift",
    "number:1",
    // The numbers that follow in 16 and in 32 bits.
    `number:${2 ** 16}`,
    `number:${2 ** 32}`,
  ].map((fault) => badMac(fault)),
  badMac("random --fault-at 0", 0),
];

const WRONG_ORDER: PacketFault[] = [
  badMac("swap"),
  badMac("drop"),
  badMac("repeat", 2),
  badMac("swap --fault-at 0", 0),
  badMac("drop --fault-at 0", 0),
];

const WRONG_LENGTHS: PacketFault[] = [0, 1025, 2 ** 16, 2 ** 31, 2 ** 32 - 1].map((length) => [
  `--packet-fault length:${length}`,
  1,
  "peer: bad length in packet 1",
]);

const TRUNCATIONS: PacketFault[] = [
  ...[1, 1023, 1024, 1028, 1059].map(
    (size) => [`--packet-fault cut:${size}`, 1, "peer: truncated in packet 1"] as const,
  ),
  ["--packet-fault cut:0 --end rst", 1, "peer: reset"],
  ["--packet-fault cut:500 --end rst", 1, "peer: reset"],
  ["--end rst", 3, "peer: reset"],
];

describeIfAllInstalled("a peer with a wrong stream", () => {
  const groups = [
    ["forged packets", FORGERIES],
    ["packets in a wrong order", WRONG_ORDER],
    ["packets with a wrong length", WRONG_LENGTHS],
    ["a truncated or reset stream", TRUNCATIONS],
  ] as const;
  const cases = groups.flatMap(([what, faults]) => BOTH_ROLES.map((role) => [role, what, faults] as const));

  it.each(cases)("is dropped as a %s that sends %s, after the data before", async (role, _what, faults) => {
    const tunnel = await startTunnel("ours", role);
    for (const [fault, delivered, expected] of faults) {
      const name = `${role}: ${fault}`;
      const options = [...THREE_PACKETS, ...fault.split(" ")];
      const { report, plaintext, reason } = await tunnel.connect({ options, data: DATA, answer: DATA });
      expect(plaintext, name).toEqual({ data: DATA.subarray(0, 100 * delivered), end: "reset" });
      expect(report, name).toMatchObject({ bytes_received: HANDSHAKE, packets: 0 });
      expect(["eof", "reset", "reset by this side"], name).toContain(report.ended);
      expect(reason, name).toMatch(new RegExp(`^(${expected})$`));
      expect(tunnel.daemon.stderr(), name).toContain(` failed: ${reason!.replace(/ \d+$/, "")}`);
      await tunnel.expectHonestConnection([], 100, `after ${name}`);
    }
  });

  // Tarsnap's programs may lose data that they read together with what is wrong, and end truncated streams cleanly.
  it.each(BOTH_ROLES)("is dropped as a %s by Tarsnap's program too", async (role) => {
    const tunnel = await startTunnel("c", role);
    for (const [fault, delivered] of [...FORGERIES, ...WRONG_ORDER, ...WRONG_LENGTHS]) {
      const options = [...THREE_PACKETS, ...fault.split(" ")];
      const { report, plaintext } = await tunnel.connect({ options, data: DATA, answer: DATA });
      expect(report, fault).toMatchObject({ bytes_received: HANDSHAKE, packets: 0 });
      expect(report.ended, fault).not.toBe("timeout");
      const { data } = plaintext!;
      expect(data.length, fault).toBeLessThanOrEqual(100 * delivered);
      expect(data, fault).toEqual(DATA.subarray(0, data.length));
    }
    await tunnel.expectHonestConnection();
  });

  it.each(PAIRS)("%s: looks complete as a %s whose stream is cut between packets", async (maker, role) => {
    const tunnel = await startTunnel(maker, role);
    const options = [...THREE_PACKETS, "--packet-fault", "cut:0"];
    const { report, plaintext } = await tunnel.connect({ options, data: DATA, answer: DATA });
    expect(plaintext).toEqual({ data: DATA.subarray(0, 100), end: "end" });
    expect(report).toMatchObject({ ended: "eof", sha256: sha256(DATA), error: null });
  });

  it.each([
    ["--message-fault mac-random", "", "Handshake failed"],
    ["--public-value p", "", "Handshake failed"],
    ["--cut-handshake 319", "", "Handshake failed"],
    ["--packet-fault flip:0", DATA.subarray(0, 100), "Connection error"],
    ["--packet-fault length:1025", DATA.subarray(0, 100), "Connection error"],
    ["--packet-fault cut:500", DATA.subarray(0, 100), "Connection error"],
    ["--end rst", DATA, "Connection error"],
  ])(
    "as a server with %s makes spipe fail, and write only the data before",
    async (fault, delivered, message) => {
      const [peer, address, key] = [new Peer(), await freeAddress(), keyFile()];
      const report = peer.run(["server"], address, key, [...THREE_PACKETS, ...fault.split(" ")], DATA);
      await untilListening(peer.process, address);
      // Its standard input stays open: it ends because of the peer.
      const spipe = start([...commandOf("ours", "spipe"), "-t", address.text, "-k", key]);
      expect(await spipe.ended).toEqual({ status: 1, signal: null });
      expect(spipe.stdout()).toEqual(Buffer.from(delivered));
      expect(spipe.stderr().split("\n")).toContain(`spipe: ${message}`);
      expect(await report).toMatchObject({ bytes_received: HANDSHAKE, packets: 0 });
    },
  );
});
