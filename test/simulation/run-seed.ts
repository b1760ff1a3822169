/** Runs the world of a seed, whose kind the seed decides too. */
import "./system.ts";

import type { Engine } from "../../src/protocol/engine/engine.ts";
import { runLibraryWorld } from "./library-world.ts";
import type { Outcome } from "./run-simulation.ts";
import { runWorld } from "./world.ts";

/** Every third world is one of the library, the others are of two daemons. */
const LIBRARY_INTERVAL = 3;

/** Runs a world, and keeps its steps as text if `keepsText` is true. */
export function runSeed(seed: number, engine: Engine, keepsText: boolean): Promise<Outcome> {
  const runKind = seed % LIBRARY_INTERVAL === 0 ? runLibraryWorld : runWorld;
  return runKind(seed, engine, { keepsText });
}
