/** Starts the programs under test, each with a peer and a plaintext side that are under our control. */
import { spawn } from "node:child_process";
import { Channel, connectTo, deadline, Failure, freePort, Listener, sleep, within } from "./channel.mjs";

const children = new Set();
process.on("exit", () => {
  for (const child of children) child.kill("SIGKILL");
});

/** A process under test; its standard error is kept for reports. */
class Process {
  child;
  exited;
  stderr = "";

  constructor(command, args) {
    this.child = spawn(command[0], [...command.slice(1), ...args], { stdio: ["pipe", "pipe", "pipe"] });
    children.add(this.child);
    this.child.stderr.on("data", (chunk) => {
      this.stderr = (this.stderr + chunk).slice(-2000);
    });
    this.exited = new Promise((resolve) => {
      this.child.on("error", (error) => {
        this.stderr += error.message;
        resolve(error.message);
      });
      // Not "exit": what it has written before is read by then.
      this.child.on("close", (status, signal) => {
        children.delete(this.child);
        resolve(status ?? signal);
      });
    });
  }

  get isRunning() {
    return this.child.pid !== undefined && this.child.exitCode === null && this.child.signalCode === null;
  }

  /** Throws a Failure with its messages if it has ended. */
  async expectRunning(what) {
    if (this.isRunning) return;
    await this.exit();
    throw new Failure(`${what}: ${this.stderr.trim()}`);
  }

  /** Returns its exit status, or the signal that ended it. */
  exit() {
    return within(this.exited, "exit of the program");
  }

  async stop() {
    if (!this.isRunning) return;
    this.child.kill("SIGKILL");
    await this.exit();
  }
}

const address = (port) => `[127.0.0.1]:${port}`;

/** A daemon under test. `side` is the role that it has in the protocol. */
class Daemon {
  side;
  #command;
  #args;
  #process;
  #channels = [];
  port;
  /** Accepts the daemon's connections to its target. */
  listener = new Listener();

  constructor(side, command, keyPath, options) {
    this.side = side;
    this.#command = command;
    this.#args = ["-F", side === "server" ? "-d" : "-e", "-k", keyPath, ...options];
  }

  async start() {
    await this.listener.listen();
    this.port = await freePort();
    const ends = ["-s", address(this.port), "-t", address(this.listener.port)];
    this.#process = new Process(this.#command, [...this.#args, ...ends]);
    this.#process.child.stdin.end();
    this.#process.child.stdout.resume();
    const limit = deadline();
    for (;;) {
      await this.#process.expectRunning("the program ended at once");
      const channel = await connectTo(this.port).catch(() => undefined);
      if (channel !== undefined) {
        this.#channels.push(channel);
        break;
      }
      if (performance.now() > limit) throw new Failure("the program does not listen");
      await sleep(20);
    }
    await sleep(200);
    await this.settle();
  }

  /** Closes the connections of a check; the daemon must still be there. */
  async settle() {
    for (const channel of this.#channels.splice(0)) channel.destroy();
    do {
      await sleep(10);
    } while (this.listener.clear() > 0);
    await this.#process.expectRunning("the program has ended");
  }

  /** Number of connections to the target that no check has used. */
  get targetConnections() {
    return this.listener.count;
  }

  keep(channel) {
    this.#channels.push(channel);
    return channel;
  }

  async stop() {
    this.listener.close();
    await this.#process?.stop();
  }
}

/** `spiped -d`: we are the client and the target. */
export class ServerUnderTest extends Daemon {
  constructor(command, keyPath, options = []) {
    super("server", command, keyPath, options);
  }

  /** Opens a connection. `plain` resolves with the connection to the target. */
  async connect() {
    const wire = this.keep(await connectTo(this.port));
    let taken;
    const take = async () => this.keep(await this.listener.next("connection to the target"));
    return { side: this.side, wire, plain: () => (taken ??= take()) };
  }
}

/** `spiped -e`: we are the server and the local client. */
export class ClientUnderTest extends Daemon {
  constructor(command, keyPath, options = []) {
    super("client", command, keyPath, options);
  }

  async connect() {
    const local = this.keep(await connectTo(this.port));
    const wire = this.keep(await this.listener.next("connection of spiped -e to its target"));
    return { side: this.side, wire, plain: async () => local };
  }
}

/** `spipe`: we are the server; each connection is a process. */
export class PipeUnderTest {
  side = "client";
  #command;
  #args;
  #listener = new Listener();
  #processes = [];
  #channels = [];

  constructor(command, keyPath, options = []) {
    this.#command = command;
    this.#args = ["-k", keyPath, ...options];
  }

  async start() {
    await this.#listener.listen();
  }

  async connect() {
    const process = new Process(this.#command, [...this.#args, "-t", address(this.#listener.port)]);
    this.#processes.push(process);
    const local = new Channel(process.child.stdout, process.child.stdin);
    const failed = process.exited.then(() => {
      throw new Failure(`spipe ended without a connection: ${process.stderr.trim()}`);
    });
    failed.catch(() => {});
    const wire = await Promise.race([this.#listener.next("connection of spipe to its target"), failed]);
    this.#channels.push(wire);
    return { side: this.side, wire, plain: async () => local, exit: () => process.exit() };
  }

  async settle() {
    for (const channel of this.#channels.splice(0)) channel.destroy();
    for (const process of this.#processes.splice(0)) await process.stop();
    this.#listener.clear();
  }

  async stop() {
    await this.settle();
    this.#listener.close();
  }
}

/** Two daemons under test, or `spipe` and a daemon, which talk to each other. We are the client and the target. */
export class PairUnderTest {
  #pipe;
  #server;
  #client;
  #key;

  /** @param client - the command of `spiped`, or of `spipe` if `isPipe`. */
  constructor(spiped, client, keyPath, { isPipe, options = [], serverOptions = [] }) {
    this.#key = keyPath;
    this.#server = new ServerUnderTest(spiped, keyPath, serverOptions);
    this.#client = client;
    this.#pipe = { isPipe, options };
  }

  #front;
  #process;
  #channels = [];

  async start() {
    await this.#server.start();
    if (this.#pipe.isPipe) return;
    this.#front = await freePort();
    const ends = ["-s", address(this.#front), "-t", address(this.#server.port)];
    const args = ["-F", "-e", "-k", this.#key, ...this.#pipe.options, ...ends];
    this.#process = new Process(this.#client, args);
    this.#process.child.stdin.end();
    this.#process.child.stdout.resume();
    const limit = deadline();
    while (
      !(await connectTo(this.#front).then(
        (channel) => channel.destroy() ?? true,
        () => false,
      ))
    ) {
      await this.#process.expectRunning("the program ended at once");
      if (performance.now() > limit) throw new Failure("the program does not listen");
      await sleep(20);
    }
    await sleep(200);
    await this.#server.settle();
  }

  /** Returns our two ends of a connection through both programs. */
  async connect() {
    let local;
    let exit;
    if (this.#pipe.isPipe) {
      const args = ["-k", this.#key, ...this.#pipe.options, "-t", address(this.#server.port)];
      this.#process = new Process(this.#client, args);
      local = new Channel(this.#process.child.stdout, this.#process.child.stdin);
      exit = () => this.#process.exit();
    } else {
      local = await connectTo(this.#front);
    }
    this.#channels.push(local);
    const target = await this.#server.listener.next("connection to the target");
    this.#channels.push(target);
    return { local, target, exit };
  }

  async settle() {
    for (const channel of this.#channels.splice(0)) channel.destroy();
    if (this.#pipe.isPipe) await this.#process?.stop();
    await this.#server.settle();
  }

  async stop() {
    await this.#process?.stop();
    await this.#server.stop();
  }
}
