/** Reads a process's descriptors and sockets from /proc. */
import { readdirSync, readFileSync, readlinkSync } from "node:fs";

/** Returns the number of a process's open descriptors. */
export const descriptors = (pid: number): number => readdirSync(`/proc/${pid}/fd`).length;

/** Returns the TCP ports on which a process listens. */
export function listeningPorts(pid: number): number[] {
  const inodes = new Set<string>();
  for (const fd of readdirSync(`/proc/${pid}/fd`)) {
    try {
      inodes.add(/^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/${pid}/fd/${fd}`))?.[1] ?? "");
    } catch {
      // The descriptor has been closed in the meantime.
    }
  }
  return ["tcp", "tcp6"].flatMap((table) =>
    readFileSync(`/proc/${pid}/net/${table}`, "latin1")
      .trim()
      .split("\n")
      .slice(1)
      .map((line) => line.trim().split(/\s+/))
      .filter((columns) => columns[3] === "0A" && inodes.has(columns[9]!))
      .map((columns) => Number.parseInt(columns[1]!.split(":")[1]!, 16)),
  );
}
