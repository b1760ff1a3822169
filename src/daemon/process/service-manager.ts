/**
 * Notifies systemd of the daemon's state (`sd_notify`). Node has no UNIX datagram sockets, so the system's
 * `systemd-notify` sends the messages, for which a unit needs `NotifyAccess=all`.
 */
import { spawn } from "node:child_process";
import { systemProgram } from "./system-program.ts";

/** Notifies the service manager, if there is one that expects it. */
export interface Notifier {
  /** @param state - lines such as `READY=1`. */
  notify(...state: readonly string[]): Promise<void>;
}

/**
 * Creates a notifier, which does nothing unless NOTIFY_SOCKET is set. Removes the variable, so that processes started
 * later do not send notifications.
 *
 * @param onFailure - called if a message cannot be sent.
 */
export function createNotifier(onFailure: (reason: string) => void): Notifier {
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
          onFailure(`cannot run systemd-notify: ${error.message}`);
          resolve();
        });
        sender.once("exit", (status) => {
          if (status !== 0) onFailure(`systemd-notify exited with status ${String(status)}`);
          resolve();
        });
        // The program may be missing, and `spawn()` itself throws if there is no memory for another process.
      }).catch((error: unknown) => onFailure(`cannot run systemd-notify: ${(error as Error).message}`)),
  };
}

/** First descriptor that systemd passes to a service. */
const FIRST_FD = 3;

/** Returns the descriptors of listening sockets that systemd opened for this process; removes their variables. */
export function inheritedListenFds(): number[] {
  const { LISTEN_PID, LISTEN_FDS } = process.env;
  for (const name of ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"]) delete process.env[name];
  // The number of descriptors is small; a longer value is not systemd's.
  if (Number(LISTEN_PID) !== process.pid || !/^\d{1,4}$/.test(LISTEN_FDS ?? "")) return [];
  return Array.from({ length: Number(LISTEN_FDS) }, (_, index) => FIRST_FD + index);
}
