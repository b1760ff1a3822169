/**
 * Soak test of our -e/-d pair: concurrent bulk transfers, echo, churn, half-closes and broken connections, all
 * checksummed.
 *
 *     node test/soak/run.mjs [MINUTES]         default 30; dist/ must be built
 *
 * Exits with 1 if data was wrong, a descriptor leaked, a daemon did not drain, or memory grew in the second half.
 */
import { spawn } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const minutes = Number(process.argv[2] ?? 30);
if (!(minutes > 0)) {
  console.error(`how many minutes? ${process.argv[2]} is no number of them`);
  process.exit(1);
}
const directory = mkdtempSync(join(tmpdir(), "spiped-soak-"));
const key = join(directory, "key");
writeFileSync(key, randomBytes(32), { mode: 0o600 });
const SPIPED = fileURLToPath(new URL("../../dist/bin/spiped.cjs", import.meta.url));
const daemons = [];
process.on("exit", () => {
  for (const { child } of daemons) child.kill("SIGKILL");
  rmSync(directory, { recursive: true, force: true });
});

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  await new Promise((closed) => server.close(closed));
  return port;
}

async function startSpiped(mode, target) {
  const port = await freePort();
  const options = [
    "-F",
    mode,
    "-n",
    "0",
    "-s",
    `[127.0.0.1]:${port}`,
    "-t",
    `[127.0.0.1]:${target}`,
    "-k",
    key,
  ];
  const child = spawn(process.execPath, [SPIPED, ...options], { stdio: ["ignore", "inherit", "inherit"] });
  daemons.push({ name: mode, child });
  for (;;) {
    const probe = connect(port, "127.0.0.1");
    const up = await new Promise((resolve) => {
      probe.once("connect", () => resolve(true));
      probe.once("error", () => resolve(false));
    });
    probe.destroy();
    if (up) return port;
    await sleep(20);
  }
}

/** The service: reads to the end and responds with the digest, or echoes if the first byte is "E". */
const service = createServer({ allowHalfOpen: true }, (socket) => {
  socket.on("error", () => {});
  const endEmpty = () => socket.end();
  socket.once("end", endEmpty);
  socket.once("data", (first) => {
    socket.off("end", endEmpty);
    if (first[0] === 0x45) {
      socket.write(first);
      socket.pipe(socket);
      return;
    }
    const hash = createHash("sha256").update(first);
    socket.on("data", (chunk) => hash.update(chunk));
    socket.on("end", () => socket.end(hash.digest()));
  });
}).listen(0, "127.0.0.1", 4096);
await once(service, "listening");
const front = await startSpiped("-e", await startSpiped("-d", service.address().port));

const seen = { connections: 0, bytes: 0, broken: 0 };
const failures = [];
const block = randomBytes(1 << 20);
const end = performance.now() + minutes * 60_000;
const running = () => performance.now() < end && failures.length === 0;

function dial() {
  const socket = connect({ port: front, host: "127.0.0.1", allowHalfOpen: true });
  socket.on("error", () => {});
  seen.connections += 1;
  return socket;
}

const over = (socket) => new Promise((resolve) => socket.once("close", resolve));

/** Sends up to 64 MiB, half-closes, and compares the digest that is returned. */
async function bulk() {
  const socket = dial();
  const hash = createHash("sha256");
  const answer = [];
  socket.on("data", (chunk) => answer.push(chunk));
  const closed = over(socket);
  let first = true;
  for (let left = Math.floor(Math.random() ** 2 * 64 * 1024 * 1024) + 1; left > 0; ) {
    const start = Math.floor(Math.random() * 1000);
    const piece = Buffer.from(
      block.subarray(start, start + Math.min(left, 1 + Math.floor(Math.random() * 500_000))),
    );
    if (first) piece[0] = 0;
    first = false;
    hash.update(piece);
    left -= piece.length;
    seen.bytes += piece.length;
    if (!socket.write(piece)) await Promise.race([once(socket, "drain").catch(() => {}), closed]);
    if (socket.destroyed) break;
  }
  socket.end();
  await closed;
  if (!Buffer.concat(answer).equals(hash.digest())) failures.push("a digest is wrong");
}

/** Echoes messages of random sizes, and half-closes. */
async function echo() {
  const socket = dial();
  const hash = createHash("sha256");
  const echoed = createHash("sha256");
  socket.on("data", (chunk) => echoed.update(chunk));
  const closed = over(socket);
  for (let i = 0, count = 1 + Math.floor(Math.random() * 40); i < count; i += 1) {
    const message = Buffer.from(block.subarray(0, 1 + Math.floor(Math.random() ** 3 * 20_000)));
    message[0] = 0x45;
    hash.update(message);
    seen.bytes += message.length;
    socket.write(message);
    if (Math.random() < 0.5) await sleep(Math.random() * 5);
  }
  socket.end();
  await closed;
  if (hash.digest("hex") !== echoed.digest("hex")) failures.push("an echo is wrong");
}

/** Connects, echoes a byte and closes. */
async function churn() {
  const socket = dial();
  const closed = over(socket);
  let answer = "";
  socket.on("data", (chunk) => {
    answer += chunk;
  });
  socket.end("E");
  await closed;
  if (answer !== "E") failures.push(`a byte came back as ${JSON.stringify(answer)}`);
}

/** Closes or resets the connection at a random moment. */
async function abort() {
  const socket = dial();
  const closed = over(socket);
  socket.write(block.subarray(0, Math.floor(Math.random() * 300_000) + 1));
  socket.resume();
  setTimeout(() => (Math.random() < 0.5 ? socket.resetAndDestroy() : socket.destroy()), Math.random() * 30);
  seen.broken += 1;
  await closed;
}

const samples = [];
const resident = (pid) =>
  Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "latin1"))[1]) / 1024;
const descriptors = (pid) => readdirSync(`/proc/${pid}/fd`).length;
const take = () => daemons.map(({ child }) => resident(child.pid));

const again = async (work) => {
  while (running()) await work();
};
const before = daemons.map(({ child }) => descriptors(child.pid));
const sampling = setInterval(() => samples.push(take()), Math.max(200, minutes * 250));
await Promise.all([
  ...Array.from({ length: 2 }, () => again(bulk)),
  ...Array.from({ length: 6 }, () => again(echo)),
  ...Array.from({ length: 8 }, () => again(churn)),
  ...Array.from({ length: 2 }, () => again(abort)),
]);
clearInterval(sampling);

/** Returns the growth of memory in MiB per hour, by least squares over the second half. */
function slope(index) {
  const values = samples.slice(samples.length >> 1).map((sample) => sample[index]);
  const middle = (values.length - 1) / 2;
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const covariance = values.reduce((sum, value, i) => sum + (i - middle) * (value - mean), 0);
  const variance = values.reduce((sum, _, i) => sum + (i - middle) ** 2, 0);
  return (covariance / variance) * samples.length * (60 / minutes);
}

const descriptorsLeft = () => daemons.map(({ child }, i) => descriptors(child.pid) - before[i]);
for (let waits = 0; waits < 300 && descriptorsLeft().some((count) => count > 0); waits += 1) await sleep(100);
const left = descriptorsLeft();
if (seen.connections === 0 || seen.bytes === 0) failures.push("nothing went through");
console.log(
  `${minutes} minutes: ${seen.connections} connections, ${(seen.bytes / 1e9).toFixed(1)} GB sent, ${seen.broken} broken off`,
);
for (const [i, { name }] of daemons.entries()) {
  const halves = [samples.slice(0, samples.length >> 1), samples.slice(samples.length >> 1)].map(
    (half) => half.reduce((sum, sample) => sum + sample[i], 0) / half.length,
  );
  console.log(
    `spiped ${name}: memory ${halves.map((mean) => mean.toFixed(1)).join(" then ")} MiB, slope ${slope(i).toFixed(2)} MiB an hour in the second half, ${left[i]} descriptors left`,
  );
  if (left[i] > 0) failures.push(`descriptors left in spiped ${name}`);
  // Memory grows in a daemon's first minutes.
  if (minutes >= 5 && halves[1] > halves[0] + 8) failures.push(`memory of spiped ${name} grew`);
}
for (const { name, child } of daemons) {
  const ended = once(child, "exit");
  child.kill("SIGTERM");
  const [status] = await Promise.race([ended, sleep(5000).then(() => ["does not end"])]);
  if (status !== 0) failures.push(`spiped ${name}: ${status}`);
}
console.log(failures.length === 0 ? "no failures" : failures.join("\n"));
process.exit(failures.length === 0 ? 0 : 1);
