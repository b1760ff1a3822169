/** A pool of workers without processes: what the primary does with messages that no correct worker sends. */
import processes from "node:child_process";
import { EventEmitter } from "node:events";
import { syncBuiltinESMExports } from "node:module";
import { withDefaults } from "../../src/config/option-spec.ts";
import { TUNNEL_OPTIONS } from "../../src/config/options.ts";
import type { TunnelPlan } from "../../src/config/plan.ts";
import type { Tunnel } from "../../src/daemon/tunnel.ts";
import type { ParentMessage } from "../../src/daemon/workers/messages.ts";
import { WorkerPool } from "../../src/daemon/workers/pool.ts";
import { Secret } from "../../src/protocol/secret.ts";

/** What `fork()` returns, as far as the pool uses it. */
export class FakeWorker extends EventEmitter {
  static #lastPid = 100_000;
  readonly pid = ++FakeWorker.#lastPid;
  connected = true;
  exitCode: number | null = null;
  signalCode: string | null = null;
  /** Messages from the primary. */
  readonly received: ParentMessage[] = [];

  send(message: ParentMessage): boolean {
    this.received.push(message);
    return true;
  }

  /** Sends a message to the primary. */
  say(message: unknown): void {
    this.emit("message", message);
  }

  /** Returns the numbers of the requests of a type. */
  requests(type: ParentMessage["type"]): number[] {
    return this.received.flatMap((message) =>
      message.type === type && "request" in message ? [message.request] : [],
    );
  }

  /** Returns the number of slots that it was granted. */
  get slots(): number {
    return this.received.filter(({ type }) => type === "acquired").length;
  }

  kill(): boolean {
    this.exit();
    return true;
  }

  disconnect(): void {
    this.exit();
  }

  exit(): void {
    if (this.exitCode !== null) return;
    this.connected = false;
    this.exitCode = 1;
    this.emit("exit", 1, null);
  }
}

const secret = Secret.fromKeyFile(Buffer.from("a key for tests"));

/** Returns a plan of a tunnel with a limit of three connections, and of two for the client alice. */
function makePlan(port: number): TunnelPlan {
  const [source, target, key] = [`[127.0.0.1]:${port}`, ["[127.0.0.1]:9"], "keys"];
  return {
    name: "mail",
    mode: "decrypt",
    settings: withDefaults(TUNNEL_OPTIONS, { decrypt: true, source, target, key, maxConnections: 3 }),
    source: { kind: "tcp", host: "127.0.0.1", port, family: 4 },
    targets: [],
    keys: [{ name: "alice", path: "keys/alice.key", secret, maxConnections: 2 }],
  };
}

/** The limits of the plan, by their ID. */
export const LIMITS: ReadonlyMap<string, number> = new Map([
  ['["mail",null]', 3],
  ['["mail","alice"]', 2],
]);

/** A running pool. */
export interface FakePool {
  readonly pool: WorkerPool;
  readonly tunnel: Tunnel;
  /** Settles when the first worker listens, or fails to. */
  readonly serving: Promise<void>;
  /** The workers that were started, in this order. */
  readonly workers: readonly FakeWorker[];
  readonly warnings: readonly string[];
  stop(): Promise<void>;
}

/**
 * Starts a pool with workers that are ready.
 *
 * @param port - to bind, without listening; 0 for one that the system chooses.
 */
export async function startFakePool(count: number, port = 0): Promise<FakePool> {
  const workers: FakeWorker[] = [];
  const warnings: string[] = [];
  const { fork } = processes;
  processes.fork = (() => {
    const worker = new FakeWorker();
    workers.push(worker);
    return worker;
  }) as unknown as typeof fork;
  syncBuiltinESMExports();
  const log = { warn: (message: string) => void warnings.push(message), info: () => {} };
  const pool = new WorkerPool({ count, log, logConnections: true, collectMetrics: true, warmsUp: false });
  pool.start();
  for (const worker of workers) worker.say({ type: "ready" });
  const plan = makePlan(port);
  const tunnel = await pool.open(plan);
  return {
    pool,
    tunnel,
    serving: tunnel.serve(plan),
    workers,
    warnings,
    async stop() {
      pool.stop();
      tunnel.destroy();
      for (const worker of workers) worker.exit();
      await pool.exited();
      processes.fork = fork;
      syncBuiltinESMExports();
    },
  };
}
