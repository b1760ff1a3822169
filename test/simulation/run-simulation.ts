/** Runs one world after the other in this process. */
import type { SimulatedClock } from "./clock.ts";
import type { EventLoop } from "./event-loop.ts";
import { setMachine } from "./system.ts";
import type { Trace } from "./trace.ts";

/** Time at which everything that programs do by themselves is done, in ms. */
export const REST_MS = 600_000;
/** Time after which everything that the process does by itself is done, in ms. */
export const END_MS = 60 * 60_000;

/** A world of any kind. */
export interface Simulation {
  readonly clock: SimulatedClock;
  readonly trace: Trace;
  /** Number of connections accepted. */
  readonly connections: number;
  readonly violations: readonly string[];
  /** Reports a violation. */
  report(message: string): void;
  /** Runs the world to its end. */
  run(): Promise<void>;
}

/** The result of a world. */
export interface Outcome {
  /** Hash of all steps. */
  readonly hash: string;
  readonly steps: number;
  /** Connections that were accepted by the servers. */
  readonly connections: number;
  /** What was wrong, in the order in which it was found. */
  readonly violations: readonly string[];
  /** All steps, if they are kept. */
  readonly lines: readonly string[];
}

/** Steps after which a world is considered not to come to rest. */
const MAX_STEPS = 400_000;

/** Violations that are reported. */
export const MAX_VIOLATIONS = 10;

const realImmediate = setImmediate;

/** Lets a task of the real event loop pass. */
function nextTask(): Promise<void> {
  return new Promise((resolve) => {
    realImmediate(resolve);
  });
}

let start = 2 ** 20;

/**
 * Returns the monotonic time at the start of the next world, in ms. It continues from world to world, as some modules
 * remember times.
 */
export function nextStart(): number {
  return start;
}

/** Runs a world's event loop until nothing is left to do before a time. */
export async function drive(loop: EventLoop, world: Simulation, until: number): Promise<void> {
  const { trace } = world;
  const steps = loop.run(until);
  for (;;) {
    try {
      if (steps.next().done === true) return;
    } catch (error) {
      world.report(`exception: ${(error as Error).stack}`);
      return;
    }
    await nextTask();
    if (trace.steps > MAX_STEPS) {
      world.report(`no rest after ${MAX_STEPS} steps`);
      return;
    }
  }
}

/** Runs a world. Only one can run at a time. */
export async function runSimulation(world: Simulation): Promise<Outcome> {
  const onError = (error: unknown) => {
    world.report(`exception: ${error instanceof Error ? error.stack : String(error)}`);
  };
  process.on("uncaughtException", onError);
  process.on("unhandledRejection", onError);
  const restore = world.clock.install();
  try {
    await world.run();
  } finally {
    start = Math.ceil(world.clock.now / 2 ** 20 + 1) * 2 ** 20;
    restore();
    setMachine(undefined);
    process.off("uncaughtException", onError);
    process.off("unhandledRejection", onError);
  }
  const { hash, steps, lines } = world.trace;
  return { hash, steps, connections: world.connections, violations: world.violations, lines };
}
