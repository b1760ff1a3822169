/**
 * An adversary between two daemons: whatever it does, the data delivered is an exact prefix of the data sent.
 *
 * ADVERSARY_CONNECTIONS sets the number of connections for each pair; ADVERSARY_SEED repeats a run.
 */
import { randomInt } from "node:crypto";
import { expect, it } from "vitest";
import { ATTACKS, startAdversary } from "../../support/adversary.ts";
import { connectTo, freeAddress, type Implementation, keyFile, startSpiped } from "../../support/programs.ts";
import { describeIfInstalled } from "../../support/requirements.ts";
import { seeded } from "../../support/seeded.ts";
import { serve } from "../../support/servers.ts";

const CONNECTIONS = Number(process.env.ADVERSARY_CONNECTIONS ?? 120);
const SEED = Number(process.env.ADVERSARY_SEED ?? randomInt(2 ** 31));

/** Data in which each byte depends on its position. */
const block = Buffer.alloc(200_000);
for (let i = 0; i < block.length; i += 1) block[i] = (i * 31 + (i >> 8) * 7) & 0xff;

/** Collects the data from a socket until it ends or closes, cleanly or not. */
function collect(socket: import("node:net").Socket): Promise<{ data: Buffer; clean: boolean }> {
  const chunks: Buffer[] = [];
  let ended = false;
  return new Promise((resolve) => {
    socket.on("data", (chunk) => chunks.push(chunk));
    socket.on("end", () => {
      ended = true;
    });
    const over = () => resolve({ data: Buffer.concat(chunks), clean: ended && socket.errored === null });
    socket.on("close", over);
    socket.on("end", over);
  });
}

const PAIRS: [string, Implementation, Implementation][] = [
  ["ours and ours", "ours", "ours"],
  ["ours and Tarsnap's", "ours", "c"],
  ["Tarsnap's and ours", "c", "ours"],
];

describeIfInstalled("spiped")("an adversary between -e and -d", () => {
  it.each(PAIRS)("%s: no forged byte is delivered", { timeout: 3_600_000 }, async (_name, client, server) => {
    const key = keyFile();
    const random = seeded(SEED);
    let size = 0;
    const atTarget: Promise<{ data: Buffer; clean: boolean }>[] = [];
    const target = await serve((socket) => {
      atTarget.push(collect(socket));
      socket.end(block.subarray(0, size));
    });
    const wire = await freeAddress();
    const source = await freeAddress();
    const serving = await startSpiped(server, "-d", wire, target.address, key, "-o", "0.5", "-n", "0");
    const adversary = await startAdversary(wire);
    const asking = await startSpiped(client, "-e", source, adversary.address, key, "-o", "0.5", "-n", "0");
    const seen = { attacks: 0, damaged: 0, whole: 0 };

    for (let i = 0; i < CONNECTIONS; i += 1) {
      size = Math.floor(random() ** 2 * block.length);
      const attack = ATTACKS[Math.floor(random() * ATTACKS.length)]!;
      const wireSize = 320 + Math.ceil(size / 1024) * 1060;
      const position = Math.floor(random() * wireSize);
      adversary.next = { attack, upward: random() < 0.5, position, seed: Math.floor(random() * 2 ** 32) };
      const socket = await connectTo(source);
      const answer = collect(socket);
      socket.end(block.subarray(0, size));
      const down = await answer;
      socket.destroy();
      const what = `connection ${i} of seed ${SEED}: ${JSON.stringify(adversary.next)}`;
      const up = await atTarget.pop();
      for (const result of [down, up]) {
        if (result === undefined) continue;
        expect(result.data.equals(block.subarray(0, result.data.length)), what).toBe(true);
        expect(result.data.length, what).toBeLessThanOrEqual(size);
        // A cut between two packets can't be distinguished from the end of the stream.
        if (attack === "none") expect(result.data.length, what).toBe(size);
      }
      seen.attacks += attack === "none" ? 0 : 1;
      if (down.data.length === size && up?.data.length === size) seen.whole += 1;
      else seen.damaged += 1;
    }
    // Both daemons still run.
    adversary.next = { attack: "none", upward: true, position: 0, seed: 0 };
    size = 1000;
    const last = await connectTo(source);
    const answer = collect(last);
    last.end(block.subarray(0, size));
    expect((await answer).data.length).toBe(1000);
    expect(serving.child.exitCode ?? asking.child.exitCode).toBeNull();
    expect(seen.damaged).toBeGreaterThan(0);
    expect(seen.whole).toBeGreaterThan(0);
    console.log(
      `${CONNECTIONS} connections, ${seen.attacks} attacked, ${seen.damaged} cut short, ${seen.whole} whole (seed ${SEED})`,
    );
  });
});
