/** The simulated handles make Node's sockets do what they do over the kernel's loopback interface. */

import assert from "node:assert/strict";
import { once } from "node:events";
import type { AddressInfo, Socket } from "node:net";
import { describe, expect, it } from "vitest";
import { connectDirect, createSocket, DirectSocket } from "../../src/net/direct-read.ts";
import { Listener } from "../../src/net/listener.ts";
import { cleanUp, until } from "../support/programs.ts";
import { Agenda } from "./agenda.ts";
import { SimulatedClock } from "./clock.ts";
import { EventLoop } from "./event-loop.ts";
import { Descriptors, type Endpoint, Network } from "./network.ts";
import { Random } from "./random.ts";
import { PLAIN } from "./scenario.ts";
import { SimulatedHandle } from "./simulated-handle.ts";
import { Trace } from "./trace.ts";

/** Data that fits into no buffer of a kernel. */
const MUCH = Buffer.alloc(32 * 1024 * 1024);

/** The program at the other end of a socket under test. */
interface Program {
  readonly write: (text: string) => void;
  readonly end: () => void;
  /** Closes the descriptor. */
  readonly close: () => void;
  readonly reset: () => void;
  /** Reads everything from now on. */
  readonly read: () => void;
}

interface Bench {
  readonly socket: DirectSocket;
  readonly program: Program;
  /** What has happened to the program's connection: "end" or an error. */
  readonly seen: string[];
  /** Waits until nothing happens any more. */
  readonly settle: () => Promise<void>;
}

const tasks = setImmediate;

async function realBench(): Promise<Bench> {
  const accepted: Socket[] = [];
  const listener = new Listener(
    (socket) => void accepted.push(socket),
    () => {},
  );
  await listener.listen({ kind: "tcp", host: "127.0.0.1", port: 0, family: 4 });
  const { port } = listener.address() as AddressInfo;
  // It reads nothing from the kernel until it is resumed.
  const other = connectDirect({ host: "127.0.0.1", port });
  await once(other, "connect");
  await until(() => accepted.length > 0);
  const [socket] = accepted;
  assert(socket instanceof DirectSocket);
  socket.on("error", () => {});
  cleanUp(() => {
    socket.destroy();
    other.destroy();
    listener.close();
  });
  const seen: string[] = [];
  other.on("end", () => seen.push("end"));
  other.on("error", (error: NodeJS.ErrnoException) => seen.push(error.code!));
  return {
    socket,
    seen,
    program: {
      write: (text) => void other.write(text),
      end: () => void other.end(),
      close: () => void other.destroy(),
      reset: () => void other.resetAndDestroy(),
      read: () => void other.resume(),
    },
    // The loopback interface delivers while the sender's system call is running.
    settle: async () => {
      for (let left = 200; left > 0; left -= 1) await new Promise((done) => tasks(done));
    },
  };
}

const ADDRESS = { host: "10.0.0.1", port: 1 };

/** The libuv of Node 20 and 22 takes a reset behind data for the end. */
const takesHangUpForEnd = Number(process.versions.node.split(".")[0]) < 24;

async function simulatedBench(): Promise<Bench> {
  const clock = new SimulatedClock(0);
  const agenda = new Agenda();
  const random = new Random(1, 0);
  const loop = new EventLoop(clock, agenda, random, { probability: 0, max: 0 });
  const network = new Network(clock, agenda, random, new Trace(clock, false), () => PLAIN.local);
  const host = { network, loop, descriptors: new Descriptors(100), takesHangUpForEnd };
  const settle = async () => {
    const restore = clock.install();
    for (let left = 20; left > 0; left -= 1) {
      const steps = loop.run(clock.now + 1000);
      do await new Promise((done) => tasks(done));
      while (steps.next().done !== true);
    }
    restore();
  };
  const port = network.listen(ADDRESS, 10);
  const near = network.connect("10.0.0.2", ADDRESS, () => {});
  await settle();
  const handle = SimulatedHandle.accept(host, port.queue.shift()!);
  const { socket } = createSocket({ handle, pauseOnCreate: true });
  socket.on("error", () => {});
  const seen: string[] = [];
  return { socket, seen, program: programAt(near, seen), settle };
}

function programAt(endpoint: Endpoint, seen: string[]): Program {
  const buffer = Buffer.alloc(65_536);
  const read = () => {
    for (;;) {
      const length = endpoint.isClosed || !endpoint.isReadable ? -1 : endpoint.read(buffer);
      if (length > 0) continue;
      if (length === 0) seen.push("end");
      else if (endpoint.isDead) seen.push("ECONNRESET");
      if (length === 0 || endpoint.isDead) endpoint.onChange = () => {};
      return;
    }
  };
  return {
    write: (text) => void endpoint.write(Buffer.from(text)),
    end: () => void endpoint.shutdown(),
    close: () => endpoint.close(),
    reset: () => endpoint.reset(),
    read: () => {
      endpoint.onChange = read;
      read();
    },
  };
}

type Script = (bench: Bench, log: (event: string) => void) => Promise<void>;

const reset: Script = async ({ program, settle }) => {
  program.reset();
  await settle();
};

/** What is done to the socket and by the program at its other end. */
const SCRIPTS: Record<string, Script> = {
  "data, then the end": async ({ socket, program, settle }) => {
    program.write("data");
    program.end();
    socket.resume();
    await settle();
  },
  "a reset of a socket that reads": async (bench, log) => {
    bench.socket.resume();
    await reset(bench, log);
  },
  "data, then a reset": async (bench, log) => {
    bench.program.write("data");
    await reset(bench, log);
    bench.socket.resume();
    await bench.settle();
  },
  "data, the end, then a reset": async (bench, log) => {
    bench.program.write("data");
    bench.program.end();
    await bench.settle();
    await reset(bench, log);
    bench.socket.resume();
    await bench.settle();
  },
  "a write after a reset": async (bench, log) => {
    await reset(bench, log);
    bench.socket.write("late", (error) => log(`written ${(error as NodeJS.ErrnoException | null)?.code}`));
    await bench.settle();
    bench.socket.resume();
    await bench.settle();
  },
  "a write after data and a reset": async (bench, log) => {
    bench.program.write("data");
    await reset(bench, log);
    bench.socket.write("late", (error) => log(`written ${(error as NodeJS.ErrnoException | null)?.code}`));
    await bench.settle();
    bench.socket.resume();
    await bench.settle();
  },
  "a write after the end and a reset": async (bench, log) => {
    bench.socket.resume();
    bench.program.end();
    await bench.settle();
    await reset(bench, log);
    bench.socket.write("late", (error) => log(`written ${(error as NodeJS.ErrnoException | null)?.code}`));
    await bench.settle();
  },
  "a program that closes with unread data": async ({ socket, program, settle }) => {
    socket.write("unread");
    await settle();
    program.close();
    await settle();
    socket.resume();
    await settle();
  },
  "a program that closes, and then gets data": async ({ socket, program, settle }, log) => {
    socket.resume();
    program.close();
    await settle();
    socket.write("first", () => log("written"));
    await settle();
    socket.write("second", (error) => log(`written ${(error as NodeJS.ErrnoException | null)?.code}`));
    await settle();
  },
  "a write that the program does not read at first": async ({ socket, program, settle }, log) => {
    socket.write(MUCH, (error) => log(`written ${(error as NodeJS.ErrnoException | null)?.code}`));
    await settle();
    log("still pending");
    program.read();
    await settle();
    socket.end();
    await settle();
  },
  "a half-close": async ({ socket, program, settle }, log) => {
    program.read();
    socket.end("last", () => log("finished"));
    await settle();
    program.write("answer");
    program.end();
    socket.resume();
    await settle();
  },
  "a reset by the socket": async ({ socket, program, settle }) => {
    program.read();
    socket.write("data");
    await settle();
    socket.resetAndDestroy();
    await settle();
  },
  "a socket that is destroyed with unread data": async ({ socket, program, settle }) => {
    program.read();
    program.write("unread");
    await settle();
    socket.destroy();
    await settle();
  },
  "a socket that is destroyed while a write is pending": async ({ socket, settle }, log) => {
    socket.write(MUCH, () => log("written"));
    await settle();
    socket.destroy();
    await settle();
  },
  "a reset while a write is pending": async (bench, log) => {
    bench.socket.write(MUCH, (error) => log(`written ${(error as NodeJS.ErrnoException | null)?.code}`));
    await bench.settle();
    bench.socket.resume();
    await reset(bench, log);
  },
};

async function run({ socket, seen, ...bench }: Bench, script: Script): Promise<unknown> {
  const events: string[] = [];
  socket.on("data", (data: Buffer) => events.push(data.toString()));
  socket.pause();
  for (const name of ["end", "writeError", "finish", "close"]) socket.on(name, () => events.push(name));
  socket.on("error", (error: NodeJS.ErrnoException) => events.push(`error ${error.syscall} ${error.code}`));
  await script({ socket, seen, ...bench }, (event) => events.push(event));
  return { events, seen, destroyed: socket.destroyed };
}

describe("a socket over a simulated handle does what one over the loopback interface does, after", () => {
  it.each(Object.entries(SCRIPTS))("%s", async (_, script) => {
    const real = await run(await realBench(), script);
    const simulated = await run(await simulatedBench(), script);
    expect(simulated).toEqual(real);
  });
});
