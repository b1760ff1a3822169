/**
 * What the code under test reads of the machine: descriptors and their limit, the kernel's table of TCP sockets, and DNS.
 * Import this module before any other of `src/`, which keeps references to what it replaces.
 */
import dns from "node:dns";
import fs from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import { endianness } from "node:os";
import { getSystemErrorName } from "node:util";
import type { Endpoint } from "./network.ts";

/** The machine of a world. */
export interface Machine {
  readonly descriptorLimit: number;
  /** Returns the endpoints that the kernel knows. */
  endpoints(): Iterable<Endpoint>;
  /** Returns the endpoint of a descriptor; undefined if it is a real one. */
  endpointOf(descriptor: number): Endpoint | undefined;
  /** Resolves with the addresses of a name, or rejects, after a time. */
  lookup(name: string): Promise<string[]>;
  /** Calls `callback` when a thread of the process has completed an operation. */
  complete(callback: () => void): void;
}

let machine: Machine | undefined;

/** Sets the machine that the code under test sees; undefined for the real one. */
export function setMachine(simulated: Machine | undefined): void {
  machine = simulated;
}

type ReadCallback = (error: Error | null, text?: string) => void;

const { readFileSync, readSync } = fs;
const readFile = fs.readFile as (...args: unknown[]) => void;
const lookup = dns.promises.lookup as (...args: unknown[]) => Promise<unknown>;

function replace(target: object, functions: object): void {
  Object.assign(target, functions);
}

replace(fs, {
  readFileSync: (...args: Parameters<typeof readFileSync>) =>
    machine !== undefined && args[0] === "/proc/self/limits"
      ? `Max open files            ${machine.descriptorLimit}                 ${machine.descriptorLimit}                 files`
      : readFileSync(...args),
  readSync: (...args: Parameters<typeof readSync>) => {
    const endpoint = machine?.endpointOf(args[0]);
    if (endpoint === undefined) return readSync(...args);
    const result = endpoint.read(args[1] as Uint8Array);
    if (result >= 0) return result;
    const code = getSystemErrorName(result);
    throw Object.assign(new Error(`${code}: simulated, read`), { code, errno: result, syscall: "read" });
  },
  readFile: (...args: unknown[]) => {
    const path = args[0];
    if (machine === undefined || (path !== "/proc/self/net/tcp" && path !== "/proc/self/net/tcp6")) {
      readFile(...args);
      return;
    }
    const callback = args.at(-1) as ReadCallback;
    const current = machine;
    machine.complete(() => callback(null, path.endsWith("6") ? "" : tcpTable(current.endpoints())));
  },
});
replace(dns.promises, {
  lookup: async (...args: unknown[]) =>
    machine === undefined
      ? lookup(...args)
      : (await machine.lookup(args[0] as string)).map((address) => ({ address, family: 4 })),
});
syncBuiltinESMExports();

/** Returns the endpoints as in /proc/net/tcp. */
function tcpTable(endpoints: Iterable<Endpoint>): string {
  const rows: string[] = [];
  for (const { local, remote, unacknowledged } of endpoints) {
    const queue = unacknowledged.toString(16).toUpperCase().padStart(8, "0");
    rows.push(`${hexAddress(local)} ${hexAddress(remote)} 01 ${queue}:00000000`);
  }
  return rows.map((row, index) => `${index}: ${row}\n`).join("");
}

function hexAddress({ host, port }: { host: string; port: number }): string {
  const bytes = Buffer.from(host.split(".").map(Number));
  if (endianness() === "LE") bytes.reverse();
  return `${bytes.toString("hex")}:${port.toString(16).padStart(4, "0")}`.toUpperCase();
}
