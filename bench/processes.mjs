/** Starts and ends the programs of the benchmark, and reads their CPU time and memory. */
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

export const directory = mkdtempSync(join(tmpdir(), "spiped-bench-"));

const started = new Map();
process.on("exit", () => {
  for (const [child, signal] of started) child.kill(signal);
  rmSync(directory, { recursive: true, force: true });
});
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.once(signal, () => process.exit(1));

// With extra certificates, each start of Node takes three times as long.
delete process.env.NODE_EXTRA_CA_CERTS;

const SYSTEM_DIRECTORIES = ["/usr/sbin", "/usr/local/sbin"];

/** Path of a program, or undefined. */
export function which(program) {
  return [...process.env.PATH.split(":"), ...SYSTEM_DIRECTORIES]
    .map((place) => join(place, program))
    .find((file) => existsSync(file));
}

export const delay = (ms) => new Promise((done) => setTimeout(done, ms));

export async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  await new Promise((closed) => server.close(closed));
  return port;
}

/** Starts a process that ends with this one, by `signal`. */
export function launch(command, { signal = "SIGKILL", ...options } = {}) {
  const child = spawn(command[0], command.slice(1), { stdio: ["ignore", "ignore", "inherit"], ...options });
  started.set(child, signal);
  child.once("exit", () => started.delete(child));
  child.once("error", () => started.delete(child));
  return child;
}

export const hasExited = (child) => child.exitCode !== null || child.signalCode !== null;

export async function end(child, signal = "SIGKILL") {
  if (hasExited(child)) return;
  child.kill(signal);
  await once(child, "exit");
}

/** Runs a program to its end and returns its output. Throws if it fails or takes more than `timeout` ms. */
export async function runProgram(command, { timeout = 60_000, ...options } = {}) {
  const child = launch(command, { stdio: ["ignore", "pipe", "pipe"], ...options });
  let output = "";
  let errors = "";
  child.stdout.setEncoding("utf8").on("data", (text) => {
    output += text;
  });
  child.stderr.setEncoding("utf8").on("data", (text) => {
    errors += text;
  });
  const timer = setTimeout(() => child.kill("SIGKILL"), timeout);
  const [status, killedBy] = await once(child, "close");
  clearTimeout(timer);
  if (status !== 0) {
    const last = errors.trim().split("\n").at(-1);
    throw new Error(`${command[0]} ended with ${status ?? killedBy}: ${last}`);
  }
  return output;
}

/** Waits until a process listens on a port. Connecting would count as a client. */
export async function listening(port, child) {
  const row = new RegExp(`: \\w+:${port.toString(16).toUpperCase().padStart(4, "0")} \\w+:0000 0A `);
  const deadline = performance.now() + 20_000;
  while (!row.test(readFileSync("/proc/net/tcp", "latin1"))) {
    if (hasExited(child)) throw new Error(`${child.spawnfile} has exited instead of listening`);
    if (performance.now() > deadline) throw new Error(`${child.spawnfile} does not listen`);
    await delay(5);
  }
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

/** CPU time that a process and its children have used so far, s. */
export function processorTime(pid) {
  let user = 0;
  let system = 0;
  for (const member of family(pid)) {
    const fields = readFileSync(`/proc/${member}/stat`, "latin1").replace(/.*\) /, "").split(" ");
    user += Number(fields[11]) / TICKS;
    system += Number(fields[12]) / TICKS;
  }
  return { user, system, total: user + system };
}

/** Resident memory of a process and its children, KiB. */
export function residentMemory(pid) {
  let size = 0;
  for (const member of family(pid)) {
    size += Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${member}/status`, "latin1"))[1]);
  }
  return size;
}

/** Waits until processes have used no CPU time for 200 ms, 5 s at most. */
export async function untilIdle(pids) {
  const used = () => pids.reduce((sum, pid) => sum + processorTime(pid).total, 0);
  const deadline = performance.now() + 5000;
  for (let last = used(), quiet = 0; quiet < 4 && performance.now() < deadline; ) {
    await delay(50);
    const now = used();
    quiet = now === last ? quiet + 1 : 0;
    last = now;
  }
}

/** Runs `work` beside one busy process per core. */
export async function besideSpinners(cores, work) {
  const spinners = Array.from({ length: cores }, () => launch([process.execPath, "-e", "for (;;);"]));
  try {
    return await work();
  } finally {
    await Promise.all(spinners.map((child) => end(child)));
  }
}
