/**
 * Prevents SIGUSR1 from opening Node's debugger, a TCP port on which any local user can run code in the process. Must
 * be imported first and imports no other module: until the listener is installed, the signal opens the debugger.
 */

/** Node option that disables the debugger signal from the start; Node 22.14 and later. */
const FLAG = "--disable-sigusr1";

/** Delay before closing a debugger opened before the listener was installed, in ms. At startup it would cost 3 ms. */
const CLOSE_DELAY_MS = 1000;

process.on("SIGUSR1", () => {});

const nodeOptions = [...process.execArgv, process.env.NODE_OPTIONS ?? ""].join(" ");
const isRequested = /--inspect(-brk|-wait)?(=|\s|$)/.test(nodeOptions);
if (!isRequested && !nodeOptions.includes(FLAG)) {
  setTimeout(() => {
    void import("node:inspector").then(({ url, close }) => {
      if (url() !== undefined) close();
    });
  }, CLOSE_DELAY_MS).unref();
}

/** Returns Node options for a child process: those of this process, and `--disable-sigusr1` if supported. */
export function childNodeOptions(): string[] {
  const { execArgv, allowedNodeEnvironmentFlags } = process;
  return allowedNodeEnvironmentFlags.has(FLAG) && !execArgv.includes(FLAG)
    ? [...execArgv, FLAG]
    : [...execArgv];
}
