/** The daemons of a soak test: start, reload, drain, and samples of memory, descriptors and processor time. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { openSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { count, elapsed, fail, until } from "./report.mjs";

const SPIPED = fileURLToPath(new URL("../../dist/bin/spiped.cjs", import.meta.url));
/** Time that a daemon may take to listen, to stop listening, and to exit when it has no connection, in seconds. */
export const DAEMON_TIMEOUT = 20;
/** Linux's unit of processor time in /proc, in seconds. */
const TICK = 0.01;

/** Samples of each process that has run. */
export const processes = [];
/** All daemons that have not exited. */
const running = new Set();

process.on("exit", () => {
  for (const { child } of running) child.kill("SIGKILL");
});

export async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  await new Promise((closed) => server.close(closed));
  return port;
}

/** Returns the inode of the socket that listens on the port of 127.0.0.1; undefined if none does. */
function listeningSocket(port) {
  const address = `0100007F:${port.toString(16).toUpperCase().padStart(4, "0")}`;
  const lines = readFileSync("/proc/net/tcp", "latin1").split("\n");
  const fields = lines.map((line) => line.trim().split(/\s+/));
  return fields.find(([, local, , state]) => local === address && state === "0A")?.[9];
}

const readProcess = (pid, file) => readFileSync(`/proc/${pid}/${file}`, "latin1");
const resident = (pid) => Number(/^VmRSS:\s+(\d+)/m.exec(readProcess(pid, "status"))[1]) / 1024;
const descriptors = (pid) => readdirSync(`/proc/${pid}/fd`).length;
/** Returns true if the process has the socket open. */
const hasSocket = (pid, inode) =>
  readdirSync(`/proc/${pid}/fd`).some((fd) => {
    try {
      return readlinkSync(`/proc/${pid}/fd/${fd}`) === `socket:[${inode}]`;
    } catch {
      return false;
    }
  });
const childrenOf = (pid) =>
  readProcess(pid, `task/${pid}/children`).trim().split(" ").filter(Boolean).map(Number);

function processorSeconds(pid) {
  const fields = readProcess(pid, "stat")
    .replace(/^.*\) /s, "")
    .split(" ");
  return (Number(fields[11]) + Number(fields[12])) * TICK;
}

/** A daemon that is replaced by its next generation when it drains. */
export class Daemon {
  name;
  #args;
  #ports;
  #workers;
  #directory;
  #generation = 0;
  #current;

  /**
   * @param name - for the report.
   * @param args - the command line after `spiped -F`.
   * @param ports - those that it listens on as long as it runs.
   * @param workers - number of worker processes; 0 without `--workers`.
   * @param directory - for its messages.
   */
  constructor(name, { args, ports, workers = 0, directory }) {
    this.name = name;
    this.#args = args;
    this.#ports = ports;
    this.#workers = workers;
    this.#directory = directory;
  }

  /** Starts the next generation. */
  async start() {
    this.#generation += 1;
    const log = join(this.#directory, `${this.name.replaceAll(" ", "")}.${this.#generation}.log`);
    const stderr = openSync(log, "a");
    const workers = this.#workers === 0 ? [] : ["--workers", String(this.#workers)];
    const child = spawn(process.execPath, [SPIPED, "-F", ...this.#args, ...workers], {
      stdio: ["ignore", "ignore", stderr],
    });
    const current = {
      child,
      exited: once(child, "exit"),
      log,
      processes: [],
      isReady: false,
      draining: false,
    };
    this.#current = current;
    running.add(current);
    void current.exited.then(([status, signal]) => {
      running.delete(current);
      if (!current.draining) fail(`${this.name} exited by itself: ${status ?? signal}`);
    });
    const hasExited = () => child.exitCode !== null || child.signalCode !== null;
    const isReady = () => {
      if (hasExited()) return true;
      const serving = this.#workers === 0 ? [child.pid] : childrenOf(child.pid);
      const sockets = this.#ports.map(listeningSocket);
      return (
        serving.length === Math.max(1, this.#workers) &&
        serving.every((pid) => sockets.every((inode) => inode !== undefined && hasSocket(pid, inode)))
      );
    };
    if (!(await until(isReady, DAEMON_TIMEOUT))) fail(`${this.name} does not listen`);
    if (hasExited()) throw new Error(`${this.name} did not start`);
    const pids = [child.pid, ...childrenOf(child.pid)];
    current.processes = pids.map((pid, i) => {
      const part = this.#workers === 0 ? "" : i === 0 ? ", primary" : `, worker ${i}`;
      const name = `${this.name}${part}, generation ${this.#generation}`;
      const entry = { name, pid, samples: [], processor: 0, initialDescriptors: descriptors(pid) };
      processes.push(entry);
      return entry;
    });
    current.isReady = true;
  }

  /** Sends SIGHUP, unless the process is starting: Node ends it if the program has no handler yet. */
  reload() {
    if (!this.#current.isReady) return;
    this.#current.child.kill("SIGHUP");
    count("reloads");
  }

  /** Adds a sample of each process; a worker that was replaced is a failure. */
  sample() {
    sampleProcesses(this.#current, this.name);
  }

  /** Returns the number of descriptors above the initial one, of all processes. */
  descriptorsLeft() {
    return this.#current.processes.reduce(
      (sum, { pid, initialDescriptors }) => sum + descriptors(pid) - initialDescriptors,
      0,
    );
  }

  /**
   * Sends SIGTERM and waits until nothing listens.
   *
   * @returns a promise of the exit, which is a failure if it takes more than `seconds`.
   */
  async drain(seconds) {
    const old = this.#current;
    old.draining = true;
    const start = performance.now();
    old.child.kill("SIGTERM");
    if (
      !(await until(() => this.#ports.every((port) => listeningSocket(port) === undefined), DAEMON_TIMEOUT))
    )
      fail(`${this.name} listens after SIGTERM`);
    const sampling = setInterval(() => sampleProcesses(old, this.name), 1000);
    let outcome;
    void old.exited.then((result) => {
      outcome = result;
      clearInterval(sampling);
    });
    return async () => {
      if (!(await until(() => outcome !== undefined, seconds))) {
        clearInterval(sampling);
        fail(`${this.name} does not exit after SIGTERM`);
        return (performance.now() - start) / 1000;
      }
      if (outcome[0] !== 0) fail(`${this.name} exited with ${outcome[0] ?? outcome[1]} after SIGTERM`);
      count("daemons drained");
      return (performance.now() - start) / 1000;
    };
  }

  /** Returns the end of the current generation's messages. */
  lastMessages() {
    return readFileSync(this.#current.log, "utf8").split("\n").slice(-12).join("\n");
  }
}

function sampleProcesses({ processes: entries, draining }, name) {
  for (const entry of entries) {
    try {
      entry.samples.push({ t: elapsed(), rss: resident(entry.pid), fds: descriptors(entry.pid) });
      entry.processor = processorSeconds(entry.pid);
    } catch {
      // While a daemon drains, its workers exit one by one.
      if (!draining && !entry.isLost) fail(`${name}: process ${entry.pid} is gone`);
      entry.isLost = true;
    }
  }
}

const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

/** Returns the growth of memory in MiB per hour, by least squares. */
function slopeOf(samples) {
  const middle = mean(samples.map(({ t }) => t));
  const average = mean(samples.map(({ rss }) => rss));
  const covariance = samples.reduce((sum, { t, rss }) => sum + (t - middle) * (rss - average), 0);
  const variance = samples.reduce((sum, { t }) => sum + (t - middle) ** 2, 0);
  return variance === 0 ? 0 : (covariance / variance) * 3600;
}

/** Returns the memory, descriptors and processor time of a process over its life. */
export function summarize({ name, samples, processor, initialDescriptors }) {
  if (samples.length < 4) return undefined;
  const halves = [samples.slice(0, samples.length >> 1), samples.slice(samples.length >> 1)];
  const rss = (half) => mean(half.map((sample) => sample.rss));
  const fds = samples.map((sample) => sample.fds);
  return {
    name,
    seconds: samples.at(-1).t - samples[0].t,
    samples: samples.length,
    firstHalfMiB: rss(halves[0]),
    secondHalfMiB: rss(halves[1]),
    maxMiB: Math.max(...samples.map((sample) => sample.rss)),
    slopeMiBPerHour: slopeOf(halves[1]),
    secondHalfSeconds: halves[1].at(-1).t - halves[1][0].t,
    initialDescriptors,
    maxDescriptors: Math.max(...fds),
    lastDescriptors: fds.at(-1),
    processorSeconds: processor,
  };
}
