/** Runs the world of a seed, whose kind the seed decides too. */
import "./system.ts";

import type { Engine } from "../../src/protocol/engine/engine.ts";
import { type LibraryScenario, makeLibraryScenario, PLAIN_LIBRARY } from "./library-scenario.ts";
import { runLibraryWorld } from "./library-world.ts";
import type { Outcome } from "./run-simulation.ts";
import { makeScenario, PLAIN, type Scenario } from "./scenario.ts";
import { shrink, type WorldKind } from "./shrink.ts";
import { runWorld } from "./world.ts";

/** Every third world is one of the library, the others are of two daemons. */
const LIBRARY_INTERVAL = 3;

function isOfLibrary(seed: number): boolean {
  return seed % LIBRARY_INTERVAL === 0;
}

/** Runs a world, and keeps its steps as text if `keepsText` is true. */
export function runSeed(seed: number, engine: Engine, keepsText = false): Promise<Outcome> {
  return (isOfLibrary(seed) ? runLibraryWorld : runWorld)(seed, engine, { keepsText });
}

const ofLibrary: WorldKind<LibraryScenario> = {
  plain: PLAIN_LIBRARY,
  make: makeLibraryScenario,
  run: runLibraryWorld,
};
const ofDaemons: WorldKind<Scenario> = { plain: PLAIN, make: makeScenario, run: runWorld };

/** Returns what differs from the plain scenario in the simplest scenario found that fails like that of a seed. */
export function shrinkSeed(seed: number, engine: Engine): Promise<object> {
  return isOfLibrary(seed) ? shrink(seed, engine, ofLibrary) : shrink(seed, engine, ofDaemons);
}
