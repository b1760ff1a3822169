/** The daemons that are compared. */
import { type ChildProcess, spawn } from "node:child_process";
import { randomInt } from "node:crypto";
import { once } from "node:events";
import { readdirSync } from "node:fs";
import { connect, createServer, type Server, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import type { Case, Configuration, Role } from "./cases.ts";
import { type Observation, Run } from "./connection.ts";
import { type Handshake, meaningOf } from "./stream.ts";

/** Tarsnap's spiped, this project's, and the independent implementation in Python. */
const IMPLEMENTATIONS = ["tarsnap", "ours", "python"] as const;
export type Implementation = (typeof IMPLEMENTATIONS)[number];

const SPIPED_OPTIONS: Record<Configuration, readonly string[]> = {
  default: [],
  weak: ["-f"],
  "forward-secrecy": ["-g"],
  "no-keepalive": ["-D", "-j"],
  silent: ["-o", "1"],
  unreachable: [],
};

const PYTHON_OPTIONS: Record<Configuration, readonly string[]> = {
  default: [],
  weak: ["--weak"],
  "forward-secrecy": ["--require-forward-secrecy"],
  "no-keepalive": [],
  silent: ["--timeout", "1"],
  unreachable: [],
};

/** What a daemon is for: the part that the test plays, and the options. */
export interface DaemonKind {
  readonly role: Role;
  readonly configuration: Configuration;
}

/** Returns the implementations that can play the other part. */
export function implementationsOf({ role }: DaemonKind): readonly Implementation[] {
  return role === "client" ? IMPLEMENTATIONS : ["tarsnap", "ours"];
}

/** Long enough that no case reaches it, except those with silent peers; in seconds. */
const LONG_TIMEOUT = "60";

/** Time in which a daemon must start, and give back the descriptors of a connection, in ms. */
const MAX_WAIT_MS = 30_000;

/** Characters of a daemon's standard error that are kept for the report of its exit. */
const MAX_LOG = 4000;

function commandOf(
  implementation: Implementation,
  { role, configuration }: DaemonKind,
  port: number,
  target: number,
  key: string,
): [string, ...string[]] {
  const [address, to] = [`[127.0.0.1]:${port}`, `[127.0.0.1]:${target}`];
  const timeout = configuration === "silent" ? [] : [LONG_TIMEOUT];
  if (implementation === "python") {
    const options = [...timeout.flatMap((value) => ["--timeout", value]), ...PYTHON_OPTIONS[configuration]];
    const script = "test/support/independent-peer.py";
    return [
      "python3",
      "-I",
      script,
      "daemon",
      "--address",
      address,
      "--target",
      to,
      "--key",
      key,
      ...options,
    ];
  }
  const mode = role === "client" ? "-d" : "-e";
  const common = ["-F", mode, "-s", address, "-t", to, "-k", key, "-n", "0"];
  const options = [...common, ...timeout.flatMap((value) => ["-o", value]), ...SPIPED_OPTIONS[configuration]];
  if (implementation === "tarsnap") return ["spiped", ...options];
  // Failed handshakes are penalized, which would make the result of a case depend on the cases before.
  return [process.execPath, "dist/bin/spiped.cjs", ...options, "--penalty-exempt", "127.0.0.1"];
}

/** A running daemon, and what it connects to. Runs one case at a time. */
export class Daemon {
  readonly implementation: Implementation;
  readonly #kind: DaemonKind;
  readonly #key: string;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #child: ChildProcess | undefined;
  #port = 0;
  #run: Run | undefined;
  /** The end of its standard error. */
  #log = "";
  /** Number of descriptors of the daemon when it has no connection. */
  #descriptors = 0;

  constructor(implementation: Implementation, kind: DaemonKind, key: string) {
    this.implementation = implementation;
    this.#kind = kind;
    this.#key = key;
    this.#server = createServer({ allowHalfOpen: true }, (socket) => {
      this.#sockets.add(socket);
      socket.once("close", () => this.#sockets.delete(socket));
      if (this.#run !== undefined) this.#run.onConnection(socket);
      else socket.on("error", () => {}).destroy();
    });
  }

  async start(): Promise<void> {
    const target = await listen(this.#server);
    if (this.#kind.configuration === "unreachable") await close(this.#server);
    const probe = createServer();
    this.#port = await listen(probe);
    await close(probe);
    const [program, ...args] = commandOf(this.implementation, this.#kind, this.#port, target, this.#key);
    this.#child = spawn(program, args, { stdio: ["ignore", "ignore", "pipe"] });
    this.#child.stderr!.on("data", (chunk) => {
      this.#log = `${this.#log}${chunk}`.slice(-MAX_LOG);
    });
    const deadline = Date.now() + MAX_WAIT_MS;
    while (!(await this.#answers())) {
      if (Date.now() > deadline || this.#child.exitCode !== null)
        throw new Error(`${this.implementation} does not start: ${JSON.stringify(this.#kind)}`);
      await sleep(20);
    }
    // What the daemon opens with its first connection stays open.
    await sleep(200);
    this.#descriptors = this.#countDescriptors();
  }

  /** Returns true if a connection to the daemon is accepted and, with `-d`, gets a nonce. */
  async #answers(): Promise<boolean> {
    const socket = connect({ port: this.#port, host: "127.0.0.1" });
    socket.on("error", () => {});
    const closed = new Promise<false>((resolve) => socket.once("close", () => resolve(false)));
    const greeting = new Promise<true>((resolve) => {
      socket.once(this.#kind.role === "client" ? "data" : "connect", () => resolve(true));
    });
    const greeted = await Promise.race([greeting, closed]);
    socket.destroy();
    await closed;
    return greeted;
  }

  /**
   * Runs a case.
   *
   * @param patience - see `Run`.
   * @throws Error if the daemon has exited, or keeps descriptors of the connection.
   */
  async run(it: Case, handshake: Handshake, patience: number): Promise<Observation> {
    const run = new Run(it, handshake, patience);
    this.#run = run;
    const observation = await run.play(this.#port, (sent) => {
      if (this.#kind.configuration === "unreachable") return false;
      return this.implementation === "tarsnap" || meaningOf(it, sent).proof === "valid";
    });
    const deadline = Date.now() + MAX_WAIT_MS;
    while (this.#countDescriptors() > this.#descriptors) {
      if (Date.now() > deadline)
        throw new Error(
          `${this.implementation} keeps descriptors of a closed connection, case ${it.index} of seed ${it.seed}`,
        );
      await sleep(2);
    }
    // A connection to the target that is closed already may not have been accepted here.
    for (let i = 0; i < 3; i += 1) await new Promise((done) => setImmediate(done));
    this.#run = undefined;
    return observation;
  }

  async stop(): Promise<void> {
    const child = this.#child;
    if (child?.exitCode === null && child.signalCode === null) {
      const exited = once(child, "exit");
      child.kill("SIGKILL");
      await exited;
    }
    for (const socket of this.#sockets) socket.destroy();
    if (this.#server.listening) await close(this.#server);
  }

  #countDescriptors(): number {
    const child = this.#child!;
    if (child.exitCode !== null || child.signalCode !== null)
      throw new Error(
        `${this.implementation} has exited: ${child.exitCode ?? child.signalCode}\n${this.#log}`,
      );
    return readdirSync(`/proc/${child.pid}/fd`).length;
  }
}

/** Ports below those that the kernel chooses, and above those of the other tests, in turn. */
const PORTS = { first: 30_000, count: 2700 };
let lastPort = randomInt(PORTS.count);

/** Listens on a port that no one is given again until all others have been. */
async function listen(server: Server): Promise<number> {
  for (;;) {
    lastPort = (lastPort + 1) % PORTS.count;
    const port = PORTS.first + lastPort;
    const isFree = await new Promise<boolean>((resolve) => {
      server.once("error", () => resolve(false));
      server.listen(port, "127.0.0.1", () => resolve(true));
    });
    server.removeAllListeners("error");
    if (isFree) return port;
  }
}

async function close(server: Server): Promise<void> {
  await new Promise((closed) => server.close(closed));
}
