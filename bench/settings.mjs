/** The command line of the benchmark, and the amounts that depend on `--quick`. */
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const { values } = parseArgs({
  options: {
    quick: { type: "boolean", default: false },
    rows: { type: "string" },
    rounds: { type: "string" },
    node: { type: "string" },
    dist: { type: "string" },
    "no-write": { type: "boolean", default: false },
  },
});
const { quick } = values;
const BUILD = fileURLToPath(new URL("../dist", import.meta.url));

export const settings = {
  quick,
  /** Names of the rows to measure; undefined for all. */
  rows: values.rows?.split(","),
  rounds: Number(values.rounds ?? (quick ? 1 : 5)),
  /** Node executable for our programs. */
  node: values.node ?? process.execPath,
  /** Directory of our programs. */
  programs: join(values.dist === undefined ? BUILD : resolve(values.dist), "bin"),
  isOwnNode: values.node === undefined,
  write: !values["no-write"] && !quick && values.dist === undefined,
  /** Bytes of a bulk transfer. */
  size: quick ? 1 << 27 : 1 << 30,
  /** Bytes that warm up a pair before a bulk transfer. */
  warmUpSize: quick ? 1 << 28 : 1 << 29,
  /** Duration of a measurement, s. */
  seconds: quick ? 1 : 3,
  /** Duration of a warm-up, s. It takes longer on a machine that does not reach the numbers below in that time. */
  warmUpSeconds: quick ? 1 : 4,
  /** Echoes or requests of a warm-up: the 99th percentile of echoes is stable after about 8,000 of them. */
  warmUpRequests: quick ? 10_000 : 30_000,
  /** Connections of a warm-up. */
  warmUpConnections: quick ? 500 : 2000,
  /** Samples of a measurement that takes a fresh pair or program each. */
  samples: quick ? 3 : 10,
  /** Time in which 2000 connections must be served, ms. */
  burstTimeout: quick ? 15_000 : 60_000,
  /** Idle connections held open. */
  idleConnections: quick ? 300 : 1000,
  /** Time for which a reader is stalled, ms. */
  stall: quick ? 2000 : 30_000,
};
