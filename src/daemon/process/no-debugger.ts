/**
 * Keeps SIGUSR1 from opening Node's debugger, a TCP port on which any local user can run code in the process. Imported
 * before anything else, and imports nothing itself: until its listener is installed, the signal does open the debugger.
 */

/** Blocks the signal from the start of the process. Node 22.14 and later. */
const FLAG = "--disable-sigusr1";

/** When to close a debugger that was opened before the listener was installed, ms. Not at the start: that costs 3 ms. */
const CLOSE_DELAY_MS = 1000;

process.on("SIGUSR1", () => {});

const nodeOptions = [...process.execArgv, process.env.NODE_OPTIONS ?? ""].join(" ");
const isWanted = /--inspect(-brk|-wait)?(=|\s|$)/.test(nodeOptions);
if (!isWanted && !nodeOptions.includes(FLAG)) {
  setTimeout(() => {
    void import("node:inspector").then(({ url, close }) => {
      if (url() !== undefined) close();
    });
  }, CLOSE_DELAY_MS).unref();
}

/** Options for a Node process started by this one: its own, and the one that blocks SIGUSR1 if this Node has it. */
export function childNodeOptions(): string[] {
  const { execArgv, allowedNodeEnvironmentFlags } = process;
  return allowedNodeEnvironmentFlags.has(FLAG) && !execArgv.includes(FLAG)
    ? [...execArgv, FLAG]
    : [...execArgv];
}
