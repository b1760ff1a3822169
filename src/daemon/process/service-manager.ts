/**
 * Telling systemd how the daemon is (`sd_notify`). Node has no UNIX datagram sockets, so the system's `systemd-notify`
 * sends the messages; a unit needs `NotifyAccess=all` for that.
 */
import { spawn } from "node:child_process";
import { systemProgram } from "./system-program.ts";

/** Tells a supervisor that waits for it, and nobody else. */
export interface Notifier {
  /** @param state lines such as `READY=1`. */
  notify(...state: readonly string[]): Promise<void>;
}

/**
 * Makes the notifier that the environment asks for. The variable is removed, so that no process we start takes itself
 * for the daemon.
 *
 * @param onFailure told when a message could not be sent.
 */
export function takeNotifier(onFailure: (reason: string) => void): Notifier {
  const { NOTIFY_SOCKET } = process.env;
  delete process.env.NOTIFY_SOCKET;
  if (NOTIFY_SOCKET === undefined) return { notify: async () => {} };
  return {
    notify: (...state) =>
      new Promise<void>((resolve) => {
        const sender = spawn(systemProgram("systemd-notify"), [`--pid=${process.pid}`, ...state], {
          stdio: "ignore",
          env: { NOTIFY_SOCKET },
        });
        sender.once("error", (error) => {
          onFailure(`Cannot run systemd-notify: ${error.message}`);
          resolve();
        });
        sender.once("exit", (status) => {
          if (status !== 0) onFailure(`systemd-notify ended with status ${status}`);
          resolve();
        });
        // The program may be missing, and `spawn` itself throws where there is no memory for another process.
      }).catch((error: Error) => onFailure(`Cannot run systemd-notify: ${error.message}`)),
  };
}

/** The first descriptor that systemd passes to a service. */
const FIRST_FD = 3;

/** The listening sockets that systemd has opened for this process, by file descriptor. */
export function takeListeningSockets(): number[] {
  const { LISTEN_PID, LISTEN_FDS } = process.env;
  for (const name of ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"]) delete process.env[name];
  // systemd passes a small number.
  if (Number(LISTEN_PID) !== process.pid || !/^\d{1,4}$/.test(LISTEN_FDS ?? "")) return [];
  return Array.from({ length: Number(LISTEN_FDS) }, (_, index) => FIRST_FD + index);
}
