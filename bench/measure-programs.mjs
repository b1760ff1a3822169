/** Measurements of the programs themselves: memory and start. Each takes a kind of program. */
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { failOnCorruption, load } from "./load-process.mjs";
import { key, spipeOf, withPair } from "./pairs.mjs";
import { delay, end, launch, residentMemory, runProgram, untilIdle } from "./processes.mjs";
import { settings } from "./settings.mjs";
import { median } from "./statistics.mjs";

/** Resident memory of an idle daemon that has served no connection, MiB; of Node alone for `node`. */
export async function idleDaemon(kind) {
  const settle = async (pids) => {
    await untilIdle(pids);
    await delay(500);
    return pids.reduce((sum, pid) => sum + residentMemory(pid), 0) / pids.length / 1024;
  };
  if (kind === "node") {
    const child = launch([settings.node, "-e", "setInterval(() => {}, 1e9)"]);
    try {
      return { value: await settle([child.pid]) };
    } finally {
      await end(child);
    }
  }
  const { target } = await load();
  return withPair(kind, target, async ({ encrypting, decrypting }) => ({
    value: await settle([encrypting, decrypting]),
  }));
}

/** Growth of a daemon with idle connections, KiB per connection. */
export async function idleConnections(kind) {
  const { client, target } = await load();
  const count = settings.idleConnections;
  return withPair(kind, target, async ({ port, encrypting, decrypting }) => {
    await client.call("hold", { port, count: 50 });
    const pids = [encrypting, decrypting];
    const before = pids.map(residentMemory);
    await client.call("hold", { port, count });
    const grown = pids.map((pid, i) => (residentMemory(pid) - before[i]) / count);
    await client.call("release");
    return { value: (grown[0] + grown[1]) / 2 };
  });
}

/** Growth of both daemons together while a reader is stalled, MiB. All data must arrive when it resumes. */
export async function stalledReader(kind) {
  const { service, client, target } = await load();
  return withPair(kind, target, async ({ port, encrypting, decrypting }) => {
    await client.call("up", { port, size: 1 << 27 });
    const pids = [encrypting, decrypting];
    const before = pids.map(residentMemory);
    await client.call("fill", { port });
    await delay(settings.stall);
    const growth = pids.reduce((sum, pid, i) => sum + residentMemory(pid) - before[i], 0) / 1024;
    const [sent, received] = await Promise.all([client.call("finish"), service.call("resume")]);
    if (sent !== received) failOnCorruption(`${received} of ${sent} bytes arrived`);
    return { value: growth };
  });
}

/** Time from the start of a program to the first byte of its output, ms. */
async function firstByte(command, input) {
  const start = performance.now();
  const child = launch(command, { stdio: ["pipe", "pipe", "inherit"] });
  child.stdin.on("error", () => {});
  child.stdin.write(input);
  const timer = setTimeout(() => child.kill("SIGKILL"), 20_000);
  await once(child.stdout, "readable");
  const time = performance.now() - start;
  clearTimeout(timer);
  const hasOutput = child.stdout.read() !== null;
  await end(child);
  if (!hasOutput) throw new Error(`${command.join(" ")} has no output`);
  return time;
}

/** From the start of spipe to the first byte that comes back, ms; for `node`, to the first byte that Node writes. */
export async function spipe(kind) {
  const { target } = await load();
  return withPair("c", target, async ({ wire }) => {
    const command =
      kind === "node"
        ? [settings.node, "-e", 'fs.writeSync(1, "x")']
        : [...spipeOf(kind), "-t", `[127.0.0.1]:${wire}`, "-k", key];
    const times = [];
    for (let i = 0; i < settings.samples; i += 1) times.push(await firstByte(command, "Ex"));
    return { value: median(times) };
  });
}

/** Sealing alone, without sockets, MB/s; the kind is an engine. */
export async function sealing(engine) {
  const micro = fileURLToPath(new URL("micro.mjs", import.meta.url));
  const output = await runProgram([settings.node, micro, "--json", engine]);
  return { value: JSON.parse(output).rate };
}
