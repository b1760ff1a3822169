/** The programs that are compared: pairs of daemons, the encrypting one in front of the decrypting one. */
import { spawn, spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const DIST = fileURLToPath(new URL("../dist/bin/", import.meta.url));
export const directory = mkdtempSync(join(tmpdir(), "spiped-bench-"));
export const key = join(directory, "key");
writeFileSync(key, randomBytes(32), { mode: 0o600 });

const started = new Set();
process.on("exit", () => {
  for (const child of started) child.kill("SIGKILL");
  rmSync(directory, { recursive: true, force: true });
});

/** Path of a program, or undefined. */
export function which(program) {
  for (const place of [...process.env.PATH.split(":"), "/usr/sbin"]) {
    const file = join(place, program);
    if (existsSync(file)) return file;
  }
  return undefined;
}

export async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  await new Promise((closed) => server.close(closed));
  return port;
}

/** Starts a process that ends with this one. */
export function launch(command, options = {}) {
  const child = spawn(command[0], command.slice(1), { stdio: ["ignore", "ignore", "inherit"], ...options });
  started.add(child);
  child.once("exit", () => started.delete(child));
  return child;
}

export async function end(child) {
  if (child.exitCode !== null || child.signalCode !== null) return;
  child.kill("SIGKILL");
  await once(child, "exit");
}

/** Waits until a process listens on a port. Connecting would count as a client. */
async function listening(port) {
  const row = new RegExp(`: \\w+:${port.toString(16).toUpperCase().padStart(4, "0")} \\w+:0000 0A `);
  while (!row.test(readFileSync("/proc/net/tcp", "latin1")))
    await new Promise((done) => setTimeout(done, 20));
}

/** How our programs are run: another version of Node may be given with --node. */
export const ours = { node: process.execPath };

export const spipeOf = (maker) => (maker === "ours" ? [ours.node, join(DIST, "spipe.cjs")] : ["spipe"]);

const spipedOf = (maker) => (maker === "ours" ? [ours.node, join(DIST, "spiped.cjs")] : ["spiped"]);

async function startSpiped(maker, mode, target, extra) {
  const port = await freePort();
  const options = [
    "-F",
    mode,
    "-s",
    `[127.0.0.1]:${port}`,
    "-t",
    `[127.0.0.1]:${target}`,
    "-k",
    key,
    "-n",
    "0",
  ];
  const child = launch([...spipedOf(maker), ...options, ...extra]);
  await listening(port);
  return { child, port };
}

/** stunnel with a pre-shared key, so that it proves as much as spiped does. */
async function startStunnel(side, target) {
  const port = await freePort();
  const secrets = join(directory, "psk");
  writeFileSync(secrets, `bench:${"0123456789abcdef".repeat(4)}\n`, { mode: 0o600 });
  const file = join(directory, `stunnel-${side}.conf`);
  writeFileSync(
    file,
    `foreground = yes\npid =\nsyslog = no\ndebug = err\n[${side}]\nclient = ${side === "client" ? "yes" : "no"}\n` +
      `accept = 127.0.0.1:${port}\nconnect = 127.0.0.1:${target}\nciphers = PSK\nPSKsecrets = ${secrets}\n` +
      (side === "client" ? "PSKidentity = bench\n" : ""),
  );
  const child = launch([which("stunnel4") ?? "stunnel", file], { stdio: "ignore" });
  await listening(port);
  return { child, port };
}

/**
 * Starts a pair in front of the service at `target`.
 *
 * @param kind - `ours`, `c`, `c-ours` (C encrypts, ours decrypts), `ours-c`, or `stunnel`.
 */
export async function startPair(kind, target, extra = []) {
  const [front, back] = {
    ours: ["ours", "ours"],
    c: ["c", "c"],
    "c-ours": ["c", "ours"],
    "ours-c": ["ours", "c"],
  }[kind] ?? ["stunnel", "stunnel"];
  const extraFor = (maker) => (maker === "ours" ? extra : []);
  const decrypting =
    back === "stunnel"
      ? await startStunnel("server", target)
      : await startSpiped(back, "-d", target, extraFor(back));
  const encrypting =
    front === "stunnel"
      ? await startStunnel("client", decrypting.port)
      : await startSpiped(front, "-e", decrypting.port, extraFor(front));
  return {
    port: encrypting.port,
    wire: decrypting.port,
    encrypting: encrypting.child.pid,
    decrypting: decrypting.child.pid,
    end: async () => {
      await end(encrypting.child);
      await end(decrypting.child);
    },
  };
}

const TICKS = Number(spawnSync("getconf", ["CLK_TCK"], { encoding: "utf8" }).stdout);

/** A process and its children. */
function family(pid) {
  const children = readdirSync(`/proc/${pid}/task`).flatMap((task) => {
    try {
      return readFileSync(`/proc/${pid}/task/${task}/children`, "utf8")
        .split(" ")
        .filter(Boolean)
        .map(Number);
    } catch {
      return []; // The thread has ended.
    }
  });
  return [pid, ...children.flatMap(family)];
}

/** Processor time that a process and its children have used so far, s. */
export function processorTime(pid) {
  let ticks = 0;
  for (const member of family(pid)) {
    const fields = readFileSync(`/proc/${member}/stat`, "latin1").replace(/.*\) /, "").split(" ");
    ticks += Number(fields[11]) + Number(fields[12]);
  }
  return ticks / TICKS;
}

/** Resident memory of a process and its children, KiB. */
export function residentMemory(pid) {
  let size = 0;
  for (const member of family(pid)) {
    size += Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${member}/status`, "latin1"))[1]);
  }
  return size;
}
