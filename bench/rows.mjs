/** The rows of the benchmark: the programs measured, how, and the goals. */
import { spawnSync } from "node:child_process";
import { idleConnections, idleDaemon, sealing, spipe, stalledReader } from "./measure-programs.mjs";
import { pgbench, redis, withWorkers, wrk } from "./measure-requests.mjs";
import {
  bulk,
  burst,
  coldBulk,
  connections,
  echo,
  echoBesideBulk,
  firstConnection,
} from "./measure-traffic.mjs";
import { which } from "./processes.mjs";
import { settings } from "./settings.mjs";

/** Goals: of the ratio to the reference, or of our own figure. */
const ratioAtLeast = (limit) => ({ of: "ratio", sign: "≥", limit });
const ratioAtMost = (limit) => ({ of: "ratio", sign: "≤", limit });
const atLeast = (limit) => ({ of: "ours", sign: "≥", limit });
const atMost = (limit) => ({ of: "ours", sign: "≤", limit });

const nodeVersion = spawnSync(settings.node, ["--version"], { encoding: "utf8" }).stdout.trim();
const isNode20 = nodeVersion.startsWith("v20.");

const hasStunnel = which("stunnel4") !== undefined || which("stunnel") !== undefined;
// A quick run measures no program that no goal refers to.
const WITH_STUNNEL = ["ours", "c", ...(hasStunnel && !settings.quick ? ["stunnel"] : [])];
const WITH_PLAIN = ["ours", "c", ...(settings.quick ? [] : ["plain"])];
const BOTH = ["ours", "c"];

/** Packets from the client are opened by the decrypting side, those from the service by the encrypting side. */
const processorPerGigabyte = (opening, sealing) => [
  { field: opening, title: "  CPU time, opening packets", unit: "s/GB", goal: ratioAtMost(0.58) },
  { field: sealing, title: "  CPU time, sealing packets", unit: "s/GB", goal: ratioAtMost(0.75) },
  { field: "load", title: "  CPU time, load at both ends", unit: "s/GB" },
];

const small = (name, title, unit, service, measure, figures = []) => ({
  name,
  kinds: WITH_PLAIN,
  service,
  measure,
  figures: [{ title, unit, goal: ratioAtLeast(0.85) }, ...figures],
});

const perMessage = (userGoal) => [
  { field: "user", title: "  user time per message and daemon", unit: "µs", goal: userGoal },
  { field: "system", title: "  system time per message and daemon", unit: "µs" },
];

/**
 * Each row: its name, the kinds of programs (the first is compared with `against`, by default the second), the service it
 * needs, what measures one kind, and the figures of that: their field in its result (by default `value`), title, unit and
 * goal.
 */
export const ROWS = [
  small(
    "redis-200",
    "redis-benchmark GET, 200 clients, warm",
    "1/s",
    "redis",
    redis(200),
    perMessage(atMost(13)),
  ),
  small("redis-50", "redis-benchmark GET, 50 clients, warm", "1/s", "redis", redis(50), perMessage()),
  small("pgbench", "pgbench -S, 40 clients, warm", "1/s", "postgresql", pgbench(40)),
  small("wrk", "wrk, small file, 500 connections, warm", "1/s", "nginx", wrk(500), [
    { field: "open", title: "  of them connected", unit: "connections" },
  ]),
  {
    name: "up",
    kinds: WITH_STUNNEL,
    measure: bulk("up"),
    figures: [
      { title: "bulk, client to service, warm", unit: "MB/s", goal: ratioAtLeast(2) },
      ...processorPerGigabyte("decrypting", "encrypting"),
    ],
  },
  {
    name: "down",
    kinds: WITH_STUNNEL,
    measure: bulk("down"),
    figures: [
      { title: "bulk, service to client, warm", unit: "MB/s", goal: ratioAtLeast(2) },
      ...processorPerGigabyte("encrypting", "decrypting"),
    ],
  },
  {
    name: "up-busy",
    kinds: BOTH,
    measure: bulk("up", { busy: true }),
    figures: [
      { title: "bulk, client to service, warm, busy machine", unit: "MB/s", goal: ratioAtLeast(1.5) },
    ],
  },
  {
    name: "down-busy",
    kinds: BOTH,
    measure: bulk("down", { busy: true }),
    figures: [
      { title: "bulk, service to client, warm, busy machine", unit: "MB/s", goal: ratioAtLeast(1.5) },
    ],
  },
  {
    name: "up-cold",
    kinds: WITH_STUNNEL,
    measure: coldBulk,
    figures: [{ title: "bulk, first 64 MiB of a fresh pair", unit: "MB/s" }],
  },
  {
    name: "ours-c",
    kinds: ["ours-c", "c"],
    measure: bulk("up"),
    figures: [{ title: "bulk, our -e to C -d, warm", unit: "MB/s", goal: ratioAtLeast(1.1) }],
  },
  {
    name: "c-ours",
    kinds: ["c-ours", "c"],
    measure: bulk("up"),
    figures: [{ title: "bulk, C -e to our -d, warm", unit: "MB/s", goal: ratioAtLeast(1.4) }],
  },
  {
    name: "parallel",
    kinds: WITH_STUNNEL,
    measure: bulk("up", { streams: 8 }),
    figures: [{ title: "bulk, 8 streams, warm", unit: "MB/s" }],
  },
  {
    name: "first",
    kinds: WITH_STUNNEL,
    measure: firstConnection,
    figures: [
      { title: "first connection of a fresh pair, to its first echo", unit: "ms", goal: atMost(6) },
      { field: "following", title: "  echoes 2 to 10 of it, mean", unit: "µs", goal: ratioAtMost(1.5) },
    ],
  },
  {
    name: "echo",
    kinds: WITH_STUNNEL,
    measure: echo(),
    figures: [
      { field: "p50", title: "64-byte echo, warm, median", unit: "µs", goal: ratioAtMost(1.2) },
      { field: "p99", title: "64-byte echo, warm, 99th percentile", unit: "µs", goal: ratioAtMost(1.4) },
    ],
  },
  {
    name: "echo-busy",
    kinds: BOTH,
    measure: echo({ busy: true }),
    figures: [
      { field: "p50", title: "64-byte echo, warm, busy machine, median", unit: "µs" },
      {
        field: "p99",
        title: "64-byte echo, warm, busy machine, 99th percentile",
        unit: "µs",
        goal: ratioAtMost(2),
      },
    ],
  },
  {
    name: "mixed",
    kinds: BOTH,
    measure: echoBesideBulk,
    figures: [
      { field: "p50", title: "echo beside a bulk stream, warm, median", unit: "µs" },
      {
        field: "p99",
        title: "echo beside a bulk stream, warm, 99th percentile",
        unit: "µs",
        goal: ratioAtMost(0.7),
      },
    ],
  },
  {
    name: "connections",
    kinds: WITH_STUNNEL,
    measure: connections,
    figures: [
      { title: "connections, 16 at a time, warm", unit: "1/s", goal: ratioAtLeast(isNode20 ? 1.15 : 1) },
      { field: "encrypting", title: "  CPU time per connection, encrypting side", unit: "ms" },
      { field: "decrypting", title: "  CPU time per connection, decrypting side", unit: "ms" },
    ],
  },
  {
    name: "burst",
    kinds: BOTH,
    measure: burst,
    figures: [
      { title: "2000 connections at once to a fresh pair, served", unit: "1/s", goal: atLeast(600) },
      { field: "reset", title: "  of them reset", unit: "connections", goal: atMost(0) },
    ],
  },
  {
    name: "spipe",
    kinds: ["ours", "c", "node"],
    against: "node",
    measure: spipe,
    figures: [{ title: "spipe, start to first byte; node alone", unit: "ms", goal: ratioAtMost(1.6) }],
  },
  {
    name: "idle-daemon",
    kinds: ["ours", "c", "node"],
    against: "node",
    measure: idleDaemon,
    figures: [{ title: "resident memory, idle daemon; node alone", unit: "MiB", goal: ratioAtMost(1.15) }],
  },
  {
    name: "idle",
    kinds: BOTH,
    measure: idleConnections,
    figures: [
      { title: "resident memory per idle connection, after 50 others", unit: "KiB", goal: ratioAtMost(0.9) },
    ],
  },
  {
    name: "stalled",
    kinds: BOTH,
    measure: stalledReader,
    figures: [
      { title: "growth while a reader is stalled, both daemons, warm", unit: "MiB", goal: atMost(2) },
    ],
  },
  {
    name: "workers",
    kinds: ["2", "1"],
    measure: (workers) => {
      const options = ["--workers", workers];
      return bulk("up", { streams: 8, extra: { encrypting: options, decrypting: options } })("ours");
    },
    figures: [
      { title: "bulk, 8 streams, --workers 2 and 1, warm", unit: "MB/s", goal: ratioAtLeast(1) },
      { field: "daemons", title: "  CPU time, both daemons", unit: "s/GB" },
    ],
  },
  {
    name: "workers-connections",
    kinds: ["2", "1"],
    service: "redis",
    measure: withWorkers({ clients: 50, reconnect: true }),
    figures: [
      { title: "connections to our -d from a C -e -f, --workers 2 and 1, warm", unit: "1/s" },
      { field: "processor", title: "  CPU time per connection, our -d", unit: "ms" },
    ],
  },
  {
    name: "workers-requests",
    kinds: ["2", "1"],
    service: "redis",
    measure: withWorkers({ clients: 200, reconnect: false }),
    figures: [
      { title: "redis-benchmark GET through our -d, --workers 2 and 1, warm", unit: "1/s" },
      { field: "processor", title: "  CPU time per request, our -d", unit: "ms" },
    ],
  },
  {
    name: "engines",
    kinds: ["native", "portable"],
    measure: sealing,
    figures: [{ title: "sealing alone, native and portable engine, warm", unit: "MB/s" }],
  },
];
