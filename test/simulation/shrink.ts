/** Finds a simple scenario with the same failure as that of a seed. */

import type { Engine } from "../../src/protocol/engine/engine.ts";
import { Random } from "./random.ts";
import { makeScenario, PLAIN, type Scenario } from "./scenario.ts";
import { runWorld } from "./world.ts";

/** Fields that are lists, of which items can be left out. */
const LISTS = ["clients", "targetPlans", "intruders", "operations", "targetStates"] as const;

/** Yields scenarios that are a little simpler. */
function* simplerThan(scenario: Scenario): Generator<Scenario> {
  for (const list of LISTS) {
    for (const index of scenario[list].keys()) {
      yield { ...scenario, [list]: (scenario[list] as readonly unknown[]).toSpliced(index, 1) };
    }
  }
  for (const name of Object.keys(PLAIN) as (keyof Scenario)[]) {
    if (LISTS.some((list) => list === name) || scenario[name] === PLAIN[name]) continue;
    yield { ...scenario, [name]: PLAIN[name] };
  }
  for (const [index, client] of scenario.clients.entries()) {
    if (client.attack === undefined) continue;
    yield { ...scenario, clients: scenario.clients.with(index, { ...client, attack: undefined }) };
  }
}

/** Returns what kind of failure a violation is: its text without numbers. */
function kindOf(violations: readonly string[]): string | undefined {
  return violations[0]?.replace(/\d+/g, "N");
}

/**
 * Returns what differs from `PLAIN` in the simplest scenario found.
 *
 * @param runs - maximum number of worlds to try.
 */
export async function shrink(seed: number, engine: Engine, runs = 500): Promise<Partial<Scenario>> {
  let scenario = makeScenario(new Random(seed, 0));
  const failure = async (candidate: Scenario) =>
    kindOf((await runWorld(seed, engine, { scenario: candidate })).violations);
  const kind = await failure(scenario);
  if (kind === undefined) throw new Error(`the world of seed ${seed} does not fail`);
  let left = runs;
  for (let isSimpler = true; isSimpler && left > 0; ) {
    isSimpler = false;
    for (const candidate of simplerThan(scenario)) {
      left -= 1;
      if (left <= 0 || (await failure(candidate)) !== kind) continue;
      scenario = candidate;
      isSimpler = true;
      break;
    }
  }
  return Object.fromEntries(
    Object.entries(scenario).filter(([name, value]) => value !== PLAIN[name as keyof Scenario]),
  );
}
