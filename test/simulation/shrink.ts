/** Finds a simple scenario with the same failure as that of a seed. */

import type { Engine } from "../../src/protocol/engine/engine.ts";
import { Random } from "./random.ts";
import type { Outcome } from "./run-simulation.ts";

/** A kind of world, by its scenarios. */
export interface WorldKind<Scenario extends object> {
  /** A scenario in which little happens. */
  readonly plain: Scenario;
  readonly make: (random: Random) => Scenario;
  readonly run: (seed: number, engine: Engine, options: { scenario: Scenario }) => Promise<Outcome>;
}

/** Yields scenarios that are a little simpler. */
function* simplerThan<Scenario extends object>(scenario: Scenario, plain: Scenario): Generator<Scenario> {
  const fields = Object.entries(scenario) as [string, unknown][];
  const lists = fields.filter((field): field is [string, object[]] => Array.isArray(field[1]));
  for (const [name, items] of lists) {
    for (const index of items.keys()) yield { ...scenario, [name]: items.toSpliced(index, 1) };
  }
  for (const [name, value] of fields) {
    const simple: unknown = plain[name as keyof Scenario];
    if (!Array.isArray(value) && value !== simple) yield { ...scenario, [name]: simple };
  }
  for (const [name, items] of lists) {
    for (const [index, item] of items.entries()) {
      if (!("attack" in item) || item.attack === undefined) continue;
      yield { ...scenario, [name]: items.with(index, { ...item, attack: undefined }) };
    }
  }
}

/** Returns what kind of failure a violation is: its text without numbers. */
function kindOf(violations: readonly string[]): string | undefined {
  return violations[0]?.replace(/\d+/g, "N");
}

/**
 * Returns what differs from the plain scenario in the simplest scenario found.
 *
 * @param runs - maximum number of worlds to try.
 */
export async function shrink<Scenario extends object>(
  seed: number,
  engine: Engine,
  { plain, make, run }: WorldKind<Scenario>,
  runs = 500,
): Promise<Partial<Scenario>> {
  let scenario = make(new Random(seed, 0));
  const failure = async (candidate: Scenario) =>
    kindOf((await run(seed, engine, { scenario: candidate })).violations);
  const kind = await failure(scenario);
  if (kind === undefined) throw new Error(`the world of seed ${seed} does not fail`);
  let left = runs;
  for (let isSimpler = true; isSimpler && left > 0; ) {
    isSimpler = false;
    for (const candidate of simplerThan(scenario, plain)) {
      left -= 1;
      if (left <= 0 || (await failure(candidate)) !== kind) continue;
      scenario = candidate;
      isSimpler = true;
      break;
    }
  }
  return Object.fromEntries(
    Object.entries(scenario).filter(([name, value]) => value !== plain[name as keyof Scenario]),
  ) as Partial<Scenario>;
}
