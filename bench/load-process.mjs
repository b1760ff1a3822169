/** Starts the processes of load.mjs and calls their operations. */
import { fileURLToPath } from "node:url";
import { end, launch } from "./processes.mjs";

const PROGRAM = fileURLToPath(new URL("load.mjs", import.meta.url));
/** Longest duration of an operation, ms: on a machine where even that is too short, no figure means anything. */
const TIMEOUT = 120_000;

/** Ends the benchmark because data was lost or changed: a defect, whatever else runs on the machine. */
export function failOnCorruption(message) {
  console.error(message);
  process.exit(1);
}

/** Starts a load process, a service or a client; returns its RPC client. */
export function startLoad() {
  const child = launch([process.execPath, PROGRAM], { stdio: ["ignore", "ignore", "inherit", "ipc"] });
  const waiting = new Map();
  let calls = 0;
  child.on("message", ({ id, result, error, corrupt }) => {
    if (corrupt !== undefined) failOnCorruption(corrupt);
    const { resolve, reject } = waiting.get(id);
    waiting.delete(id);
    if (error === undefined) resolve(result);
    else reject(new Error(error));
  });
  child.once("exit", () => {
    for (const { reject } of waiting.values()) reject(new Error("the load process has exited"));
  });
  return {
    pid: child.pid,
    /** True unless the process has exited. */
    isRunning: () => child.exitCode === null && child.signalCode === null,
    call(operation, options) {
      calls += 1;
      const id = calls;
      const timer = setTimeout(() => child.kill("SIGKILL"), TIMEOUT);
      return new Promise((resolve, reject) => {
        waiting.set(id, { resolve, reject });
        child.send({ id, operation, options });
      }).finally(() => clearTimeout(timer));
    },
    end: () => end(child),
  };
}

let service;
let client;
let target;

/** Returns the service, its port and the client; starts them, and again those that were ended. */
export async function load() {
  if (!service?.isRunning()) {
    service = startLoad();
    target = await service.call("listen");
  }
  if (!client?.isRunning()) {
    client = startLoad();
    // The load is compiled before the first pair is measured.
    await client.call("up", { port: target, size: 1 << 27 });
    await client.call("down", { port: target, size: 1 << 27 });
    await client.call("echo", { port: target, seconds: 0.3 });
    await client.call("connections", { port: target, seconds: 0.3 });
  }
  return { service, client, target };
}

/** Ends the service and the client. */
export async function endLoad() {
  await Promise.all([service?.end(), client?.end()]);
}
