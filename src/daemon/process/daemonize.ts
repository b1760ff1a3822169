/**
 * Becoming a daemon without `fork`: the parent starts the same program again in a session of its own, with the same
 * standard streams, and waits until it reports that it serves. So the child finds and tells all that can go wrong, and
 * the parent's exit status is the truth.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, fstatSync, writeSync } from "node:fs";
import { endProcess } from "./end-process.ts";
import { childNodeOptions } from "./no-debugger.ts";

/** Tells the child that it is one, by the pid of its parent; it removes the variable at once. */
const PARENT_PID = "SPIPED_PARENT_PID";

/** The descriptor on which the child reports. */
const READY_FD = 3;

/**
 * In the child, the function that reports readiness; undefined in a process that was not started by `daemonize`, whatever
 * its environment says. The variable is removed, so that no process we start takes itself for the child.
 */
export function takeReadyReport(): (() => void) | undefined {
  const parent = process.env[PARENT_PID];
  delete process.env[PARENT_PID];
  if (parent !== String(process.ppid) || !isSocket(READY_FD)) return undefined;
  return () => {
    try {
      writeSync(READY_FD, "1");
    } catch {
      // The parent has been ended; the daemon goes on, as it would after a fork.
    }
    closeSync(READY_FD);
  };
}

/** What Node's "pipe" is. */
function isSocket(fd: number): boolean {
  try {
    return fstatSync(fd).isSocket();
  } catch {
    return false;
  }
}

/**
 * Starts this program again as a daemon.
 *
 * @param args its arguments.
 * @returns true once the daemon reported that it is ready; false if it ended before, after telling why.
 */
export async function daemonize(args: readonly string[]): Promise<boolean> {
  const child = spawn(process.execPath, [...childNodeOptions(), process.argv[1]!, ...args], {
    detached: true,
    stdio: ["inherit", "inherit", "inherit", "pipe"],
    env: { ...process.env, [PARENT_PID]: String(process.pid) },
  });
  // Who interrupts the start means the daemon, which is in a session of its own and does not hear the terminal.
  const interrupt = (signal: NodeJS.Signals) => {
    child.kill(signal);
    endProcess(1);
  };
  process.on("SIGINT", interrupt);
  process.on("SIGTERM", interrupt);
  const report = child.stdio[3]!;
  const ready = await Promise.race([
    once(report, "data").then(() => true),
    once(child, "exit").then(() => false),
    once(child, "error").then(() => false),
  ]);
  report.destroy();
  child.unref();
  return ready;
}
