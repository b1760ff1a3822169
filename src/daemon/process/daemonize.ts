/**
 * Daemonizes without `fork`: the parent runs the program again in a new session, with the same standard streams, and
 * waits until the child reports readiness. So the child reports all errors itself, and the parent's exit status is
 * reliable.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, fstatSync, writeSync } from "node:fs";
import { endProcess } from "./end-process.ts";
import { childNodeOptions } from "./no-debugger.ts";

/** Environment variable that marks the child; its value is the parent's pid. The child removes it immediately. */
const PARENT_PID = "SPIPED_PARENT_PID";

/** Descriptor on which the child reports readiness. */
const READY_FD = 3;

/**
 * Returns the function with which the child reports readiness; undefined in a process not started by `daemonize()`,
 * even if its environment has the variable. Removes the variable, so that processes started later are not taken for the
 * child.
 */
export function readyCallback(): (() => void) | undefined {
  const parent = process.env[PARENT_PID];
  delete process.env[PARENT_PID];
  if (parent !== String(process.ppid) || !isSocket(READY_FD)) return undefined;
  return () => {
    try {
      writeSync(READY_FD, "1");
    } catch {
      // The parent has exited; the daemon continues, as it would after a fork.
    }
    closeSync(READY_FD);
  };
}

/** Returns true for a socket, which is what Node's "pipe" creates. */
function isSocket(fd: number): boolean {
  try {
    return fstatSync(fd).isSocket();
  } catch {
    return false;
  }
}

/**
 * Runs this program again as a daemon.
 *
 * @param args - the daemon's arguments.
 * @returns true when the daemon has reported readiness; false if it exited first, having reported the error.
 */
export async function daemonize(args: readonly string[]): Promise<boolean> {
  const child = spawn(process.execPath, [...childNodeOptions(), process.argv[1]!, ...args], {
    detached: true,
    stdio: ["inherit", "inherit", "inherit", "pipe"],
    env: { ...process.env, [PARENT_PID]: String(process.pid) },
  });
  // Forward the signal: the daemon is in a new session and does not get signals from the terminal.
  const forwardSignal = (signal: NodeJS.Signals) => {
    child.kill(signal);
    endProcess(1);
  };
  process.on("SIGINT", forwardSignal);
  process.on("SIGTERM", forwardSignal);
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
