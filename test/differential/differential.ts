/** Runs cases on all implementations and compares what they do. */
import { createHash } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Case, CONFIGURATIONS, type Configuration, makeCase } from "./cases.ts";
import { type Comparison, compare, summarize } from "./compare.ts";
import type { Observation } from "./connection.ts";
import { Daemon, type DaemonKind, type Implementation, implementationsOf } from "./daemons.ts";
import { Handshake } from "./stream.ts";

/** Time without activity after which a connection is taken to stay open, in ms. */
const PATIENCE_MS: Record<Configuration, number> = {
  default: 150,
  weak: 150,
  "forward-secrecy": 150,
  "no-keepalive": 150,
  // More than its timeout.
  silent: 3000,
  unreachable: 150,
};

/** A case that looks wrong is repeated with more time, in case the machine was busy. */
const REPETITIONS = [4, 50];
const MAX_PATIENCE_MS = 8000;

/** Sets of daemons for each configuration; each runs one case at a time. */
const SETS: Record<Configuration, number> = {
  default: 4,
  weak: 1,
  "forward-secrecy": 1,
  "no-keepalive": 1,
  silent: 3,
  unreachable: 1,
};

const KINDS: readonly DaemonKind[] = (["client", "server"] as const).flatMap((role) =>
  CONFIGURATIONS.map((configuration) => ({ role, configuration })),
);

/** A set of daemons is started for this many cases at least. */
const CASES_PER_SET = 50;

export interface Options {
  readonly seed: number;
  /** Numbers of the cases. */
  readonly cases: Iterable<number>;
  /** Called after each case. */
  readonly onCase?: (it: Case, comparison: Comparison) => void;
  /** Returns true if no more cases are to be started. */
  readonly isOver?: () => boolean;
}

/** What a run has found. */
export interface Summary {
  readonly cases: number;
  /** Cases repeated because they looked wrong at first. */
  readonly repeated: number;
  /** Number of cases by class, and how many of them had the same result with Tarsnap's program and ours. */
  readonly classes: ReadonlyMap<string, { readonly cases: number; readonly same: number }>;
  /** Descriptions of the cases with problems. */
  readonly failures: readonly string[];
}

/** Runs the cases. */
export async function runCases({ seed, cases, onCase, isOver = () => false }: Options): Promise<Summary> {
  const directory = mkdtempSync(join(tmpdir(), "spiped-differential-"));
  const keyPath = join(directory, "key");
  const key = createHash("sha256").update(`key of ${seed}`).digest();
  writeFileSync(keyPath, key, { mode: 0o600 });
  /** The cases that are left, by the kind of daemon that they need. */
  const queues = KINDS.map((kind) => ({ kind, cases: [] as Case[] }));
  for (const index of cases) {
    const it = makeCase(seed, index);
    const isFor = ({ kind }: { kind: DaemonKind }) =>
      kind.role === it.role && kind.configuration === it.configuration;
    queues.find(isFor)!.cases.push(it);
  }
  const daemons: Daemon[] = [];
  const classes = new Map<string, { cases: number; same: number }>();
  const failures: string[] = [];
  let count = 0;
  let repeated = 0;

  /** Runs the cases of a queue, one after the other, on one set of daemons. */
  const work = async (configuration: Configuration, queue: Case[], set: readonly Daemon[]) => {
    const runOnce = async (it: Case, handshake: Handshake, factor: number) => {
      const patience = Math.min(PATIENCE_MS[configuration] * factor, MAX_PATIENCE_MS);
      const seen = await Promise.all(set.map((daemon) => daemon.run(it, handshake, patience)));
      const observations = new Map<Implementation, Observation>(
        set.map((daemon, i) => [daemon.implementation, seen[i]!]),
      );
      return { observations, comparison: compare(it, observations) };
    };
    for (let it = queue.shift(); it !== undefined && !isOver(); it = queue.shift()) {
      const handshake = new Handshake(it, key);
      let result = await runOnce(it, handshake, 1);
      for (const factor of REPETITIONS) {
        if (result.comparison.problems.length === 0) break;
        repeated += 1;
        result = await runOnce(it, handshake, factor);
      }
      const { difference = "none", isSame, problems } = result.comparison;
      const name = `${it.role === "client" ? "-d" : "-e"}, ${difference}`;
      const known = classes.get(name) ?? { cases: 0, same: 0 };
      classes.set(name, { cases: known.cases + 1, same: known.same + (isSame ? 1 : 0) });
      count += 1;
      if (problems.length > 0) failures.push(describe(it, problems, result.observations));
      onCase?.(it, result.comparison);
    }
  };

  try {
    const workers = queues.flatMap(({ kind, cases: queue }) => {
      const sets = Math.min(SETS[kind.configuration], Math.ceil(queue.length / CASES_PER_SET));
      return Array.from({ length: sets }, () => {
        const set = implementationsOf(kind).map((name) => new Daemon(name, kind, keyPath));
        daemons.push(...set);
        return () => work(kind.configuration, queue, set);
      });
    });
    await Promise.all(daemons.map((daemon) => daemon.start()));
    await Promise.all(workers.map((start) => start()));
  } finally {
    await Promise.all(daemons.map((daemon) => daemon.stop()));
    rmSync(directory, { recursive: true, force: true });
  }
  return { cases: count, repeated, classes, failures };
}

function describe(
  it: Case,
  problems: readonly string[],
  observations: ReadonlyMap<Implementation, Observation>,
): string {
  const { seed, index, ...rest } = it;
  return [
    `case ${index} of seed ${seed}; repeat it with: npm run differential -- --seed ${seed} --case ${index}`,
    ...problems.map((problem) => `  ${problem}`),
    ...[...observations].map(([name, seen]) => `  ${name}: sent ${seen.sent}; ${summarize(seen)}`),
    `  ${JSON.stringify({ ...rest, cuts: rest.cuts.length })}`,
  ].join("\n");
}
