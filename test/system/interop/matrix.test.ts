/** Every pairing of our programs with Tarsnap's: over each kind of socket, with each kind of handshake. */
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { afterAll, expect, it } from "vitest";
import {
  commandOf,
  connectTo,
  type Family,
  freeAddress,
  type Implementation,
  keyFile,
  run,
  start,
  startSpiped,
  type TestAddress,
} from "../../support/programs.ts";
import { describeIfInstalled } from "../../support/requirements.ts";
import { digestOf, RandomSource, readAll, send, startDigester, startEcho } from "../../support/servers.ts";

interface Pair {
  readonly name: string;
  readonly client: "spiped" | "spipe";
  readonly clientMaker: Implementation;
  readonly serverMaker: Implementation;
}

const PAIRS: readonly Pair[] = [
  { name: "our spiped -e, Tarsnap's spiped -d", client: "spiped", clientMaker: "ours", serverMaker: "c" },
  { name: "Tarsnap's spiped -e, our spiped -d", client: "spiped", clientMaker: "c", serverMaker: "ours" },
  { name: "our spipe, Tarsnap's spiped -d", client: "spipe", clientMaker: "ours", serverMaker: "c" },
  { name: "Tarsnap's spipe, our spiped -d", client: "spipe", clientMaker: "c", serverMaker: "ours" },
];
const FAMILIES: readonly Family[] = ["IPv4", "IPv6", "UNIX"];

interface Mode {
  readonly name: string;
  readonly client?: string;
  readonly server?: string;
  readonly otherKey?: boolean;
  readonly refused?: boolean;
}

const MODES: readonly Mode[] = [
  { name: "default" },
  { name: "client -f", client: "-f" },
  { name: "server -f", server: "-f" },
  { name: "client -g", client: "-g" },
  { name: "server -g", server: "-g" },
  { name: "client -f, server -g", client: "-f", server: "-g", refused: true },
  { name: "client -g, server -f", client: "-g", server: "-f", refused: true },
  { name: "wrong key", otherKey: true, refused: true },
];

const cells = PAIRS.flatMap((pair) =>
  FAMILIES.flatMap((family) => MODES.map((mode) => ({ pair, family, mode }))),
);
const options = (option: string | undefined) => (option === undefined ? [] : [option]);

/** Returns what a client received: the answer, or an empty string if the connection failed. */
async function throughDaemon(source: TestAddress, data: Buffer): Promise<string> {
  const socket = await connectTo(source);
  socket.end(data);
  return readAll(socket).then(
    (answer) => answer.toString(),
    () => "",
  );
}

describeIfInstalled("spiped", "spipe")("each pairing with Tarsnap's programs", () => {
  const table = new Map<string, string>();

  afterAll(() => {
    const columns = FAMILIES.map((family) => family.padEnd(8)).join("");
    const rows = PAIRS.flatMap(({ name }) =>
      MODES.map((mode) => {
        const results = FAMILIES.map((family) =>
          (table.get(`${name} ${family} ${mode.name}`) ?? "FAILED").padEnd(8),
        );
        return `${name.padEnd(36)}${mode.name.padEnd(24)}${results.join("")}`;
      }),
    );
    console.log(["".padEnd(60) + columns, ...rows].join("\n"));
  });

  it.each(cells)("$pair.name over $family, $mode.name", async ({ pair, family, mode }) => {
    const key = keyFile();
    const clientKey = mode.otherKey ? keyFile() : key;
    const target = await startDigester();
    const middle = await freeAddress(family);
    await startSpiped(pair.serverMaker, "-d", middle, target.address, key, ...options(mode.server));
    const data = randomBytes(1 + Math.floor(Math.random() * 300_000));

    let answer: string;
    if (pair.client === "spiped") {
      const source = await freeAddress(family);
      await startSpiped(pair.clientMaker, "-e", source, middle, clientKey, ...options(mode.client));
      answer = await throughDaemon(source, data);
    } else {
      // When rejected, Tarsnap's spipe has a thread race: SIGPIPE may kill it, it may garble its message, or hang.
      const limit = mode.refused && pair.clientMaker === "c" ? ["timeout", "-s", "KILL", "10"] : [];
      const command = [...limit, ...commandOf(pair.clientMaker, "spipe"), "-t", middle.text, "-k", clientKey];
      const result = await run([...command, ...options(mode.client)], data);
      answer = result.stdout.toString();
      if (!mode.refused) {
        expect(result).toMatchObject({ status: 0, stderr: "" });
      } else if (pair.clientMaker === "c") {
        expect(result.status).not.toBe(0);
      } else {
        expect(result).toMatchObject({
          status: 1,
          stderr: expect.stringMatching(/^spipe: (Handshake failed|Connection error)\n/),
        });
      }
    }

    const sha256 = createHash("sha256").update(data).digest("hex");
    expect(answer).toBe(mode.refused ? "" : sha256);
    expect(target.digests.filter(({ length }) => length > 0)).toEqual(
      mode.refused ? [] : [{ sha256, length: data.length }],
    );
    table.set(`${pair.name} ${family} ${mode.name}`, mode.refused ? "refused" : "ok");
  });
});

describeIfInstalled("spiped", "spipe").each(PAIRS)("$name", (pair) => {
  /** Starts the pair in front of `target`; returns the addresses of both programs. */
  async function startPair(
    target: TestAddress,
  ): Promise<{ front: TestAddress; key: string; middle: TestAddress }> {
    const key = keyFile();
    const middle = await freeAddress();
    await startSpiped(pair.serverMaker, "-d", middle, target, key);
    const front = await freeAddress();
    if (pair.client === "spiped") await startSpiped(pair.clientMaker, "-e", front, middle, key);
    return { front, key, middle };
  }

  /** Sends the source through the pair to an echo server; returns the digest of the data received. */
  async function roundTrip(source: RandomSource) {
    const echo = await startEcho();
    const { front, key, middle } = await startPair(echo.address);
    if (pair.client === "spiped") {
      const socket = await connectTo(front);
      const [received] = await Promise.all([digestOf(socket), send(socket, source)]);
      return received;
    }
    const spipe = start([...commandOf(pair.clientMaker, "spipe"), "-t", middle.text, "-k", key], {
      stdio: ["pipe", "pipe", "inherit"],
    });
    spipe.child.stdout!.removeAllListeners("data");
    const [received] = await Promise.all([
      digestOf(spipe.child.stdout!),
      (async () => {
        for await (const chunk of source)
          if (!spipe.child.stdin!.write(chunk)) await once(spipe.child.stdin!, "drain");
        spipe.child.stdin!.end();
      })(),
    ]);
    expect(await spipe.ended).toEqual({ status: 0, signal: null });
    return received;
  }

  it.each([1, 2, 1023, 1024, 1025, 65_536, 1_000_003])("carries %i bytes there and back", async (size) => {
    const source = new RandomSource(size);
    const received = await roundTrip(source);
    expect(received).toEqual({ sha256: source.digest(), length: size });
  });

  it("carries 256 MiB there and back, in chunks of any size", { timeout: 60_000 }, async () => {
    const source = new RandomSource(256 * 1024 * 1024);
    const received = await roundTrip(source);
    expect(received).toEqual({ sha256: source.digest(), length: 256 * 1024 * 1024 });
  });
});
