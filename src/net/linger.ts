/**
 * Passing a broken connection on: everything that was written to a socket is delivered, then it is reset.
 *
 * A reset makes the system throw away what it has not sent yet, so one has to wait until the peer's system has
 * acknowledged everything. Node can't ask for that, but Linux shows it for all sockets in /proc/net. What the peer's
 * system has received it keeps for its program, at least Linux and the BSDs do, also when a reset comes behind.
 */
import { readFile } from "node:fs/promises";
import type { Socket } from "node:net";
import { endianness } from "node:os";
import { DirectSocket } from "./direct-read.ts";
import { addressBytes } from "./ip-bytes.ts";
import { isTcp, reset } from "./reset.ts";
import { deadline } from "./timers.ts";

/** How long a peer may leave everything unacknowledged before it is reset all the same, ms. */
const LONGEST_STALL = 60_000;
/** How long to wait where the system does not show what is acknowledged, ms. */
const BLIND_WAIT = 1000;
/** Between two looks at what is acknowledged, ms. */
const SHORTEST_WAIT = 5;
const LONGEST_WAIT = 250;
/** A look takes the system about 50 ns a byte; this many bytes for each ms of waiting keep that to a part of the time. */
const BYTES_PER_MS = 4096;

interface Lingering {
  /** What names the socket in /proc/net; undefined for one that is not shown there. */
  readonly row: string | undefined;
  /** What was left at the last look, bytes. */
  left: number;
  /** When that changed last. */
  changedAt: number;
}

const lingering = new Map<Socket, Lingering>();
let looking = false;

/**
 * Resets a socket, or closes it if it is a UNIX socket, when its peer has everything that was written to it. Nothing
 * may be written to it any more; what it receives is discarded.
 *
 * @param closed called when the socket is closed.
 */
export function resetWhenDelivered(socket: Socket, closed: () => void): void {
  if (socket.destroyed) {
    closed();
    return;
  }
  socket.once("close", () => {
    lingering.delete(socket);
    closed();
  });
  if (socket instanceof DirectSocket) {
    socket.deferWriteErrors = false;
    if (socket.writeError !== undefined) {
      reset(socket);
      return;
    }
  }
  socket.resume();
  lingering.set(socket, { row: rowOf(socket), left: Number.POSITIVE_INFINITY, changedAt: performance.now() });
  if (!looking) void look();
}

/** Looks again and again, as long as there is a socket to look after. */
async function look(): Promise<void> {
  looking = true;
  let wait = SHORTEST_WAIT;
  while (lingering.size > 0) {
    // One that comes while the tables are read has to wait for the next look: they may be older than what it has sent.
    const due = [...lingering];
    const table = due.some(([, { row }]) => row !== undefined) ? await readTables() : "";
    const now = performance.now();
    let progress = false;
    for (const [socket, state] of due) {
      if (!lingering.has(socket)) continue;
      const queued = state.row === undefined ? 0 : sendQueue(table, state.row);
      const left = socket.writableLength + (queued ?? 0);
      if (left !== state.left) {
        state.left = left;
        state.changedAt = now;
        progress = true;
      }
      const delivered = left === 0 && (queued !== undefined || now - state.changedAt >= BLIND_WAIT);
      if (!delivered && now - state.changedAt < LONGEST_STALL) continue;
      lingering.delete(socket);
      reset(socket);
    }
    wait = progress ? SHORTEST_WAIT : Math.min(2 * wait, LONGEST_WAIT);
    const delay = Math.max(wait, (table?.length ?? 0) / BYTES_PER_MS);
    if (lingering.size > 0) await new Promise<void>((done) => void deadline(delay, done));
  }
  looking = false;
}

/** A socket's addresses as /proc/net/tcp has them: each 32 bits of an address as the machine's own number, in hex. */
function rowOf(socket: Socket): string | undefined {
  const { localAddress, localPort, remoteAddress, remotePort } = socket;
  if (!isTcp(socket) || localAddress === undefined || remoteAddress === undefined) return undefined;
  const end = (address: string, port: number) => {
    const bytes = addressBytes(address);
    if (endianness() === "LE") bytes.swap32();
    return `${bytes.toString("hex")}:${port.toString(16).padStart(4, "0")}`.toUpperCase();
  };
  return ` ${end(localAddress, localPort!)} ${end(remoteAddress, remotePort!)} `;
}

/** All TCP sockets of the system, as it shows them; undefined if it does not. */
async function readTables(): Promise<string | undefined> {
  const read = (path: string) => readFile(path, "latin1").catch(() => undefined);
  const [tcp4, tcp6] = await Promise.all([read("/proc/self/net/tcp"), read("/proc/self/net/tcp6")]);
  return tcp4 === undefined ? undefined : `${tcp4}${tcp6 ?? ""}`;
}

/** The bytes of a row that are not acknowledged; undefined if the system does not say, or has closed the connection. */
function sendQueue(table: string | undefined, row: string): number | undefined {
  if (table === undefined) return undefined;
  const start = table.indexOf(row);
  if (start < 0) return undefined;
  // Behind the addresses: the state in two digits, a blank, the send queue in eight.
  const queue = start + row.length + 3;
  return Number.parseInt(table.slice(queue, queue + 8), 16);
}
