/**
 * Propagates a lost connection: delivers everything written to a socket, then resets it.
 *
 * A reset makes the kernel discard unsent data, so the peer's kernel must acknowledge everything first. Node has no API
 * for that, but Linux lists the unacknowledged bytes of all sockets in /proc/net. The peer's kernel keeps received data
 * for its program even if a reset follows, at least on Linux and the BSDs.
 */
import type { Socket } from "node:net";
import { endianness } from "node:os";
import { readFile } from "./async-fs.ts";
import { attachReader, directIo, unsentBytes } from "./direct-read.ts";
import { onNextIteration } from "./fairness.ts";
import { addressBytes } from "./ip-bytes.ts";
import { isTcp, reset } from "./reset.ts";
import { startTimeout } from "./timers.ts";

/** Maximum time without a new acknowledgement before the socket is reset anyway, in ms. */
const MAX_STALL_MS = 60_000;
/** Time to wait if the unacknowledged bytes are unknown, in ms. */
const BLIND_WAIT_MS = 1000;
/** Bounds of the polling interval, in ms. */
const MIN_WAIT_MS = 5;
const MAX_WAIT_MS = 250;
/** The kernel takes about 50 ns per byte of these tables; waiting 1 ms per 4096 bytes bounds the share of CPU time. */
const BYTES_PER_MS = 4096;
/** Maximum number of reads to discard per event-loop iteration, of all sockets together. */
const MAX_DISCARDED_READS = 8;

interface Lingering {
  /** Text that identifies the socket in /proc/net; undefined if it is not listed there. */
  readonly row: string | undefined;
  /** Undelivered bytes at the last poll. */
  left: number;
  /** Time of the last change of `left`, in ms on the monotonic clock. */
  changedAt: number;
}

const lingering = new Map<Socket, Lingering>();
let polling = false;
/** Lingering sockets that wait to be read again, the longest waiting first. */
const unread: Socket[] = [];

/**
 * Resets a TCP socket, or closes a UNIX socket, once its peer has received everything written to it. The caller must
 * not write to it any more; received data is discarded.
 *
 * @param onClosed - called when the socket is closed.
 */
export function resetWhenDelivered(socket: Socket, onClosed: () => void): void {
  if (socket.destroyed) {
    onClosed();
    return;
  }
  socket.once("close", () => {
    lingering.delete(socket);
    onClosed();
  });
  const direct = directIo(socket);
  if (direct !== undefined) {
    direct.deferWriteErrors = false;
    if (direct.writeError !== undefined) {
      reset(socket);
      return;
    }
  }
  discardReads(socket);
  lingering.set(socket, { row: rowOf(socket), left: Number.POSITIVE_INFINITY, changedAt: performance.now() });
  if (!polling) void poll();
}

/** Discards received data, a few reads per event-loop iteration: peers that send fast must not delay the polls. */
function discardReads(socket: Socket): void {
  const wait = () => {
    if (unread.push(socket) === 1) onNextIteration(resumeNext);
  };
  attachReader(socket, () => {
    wait();
    return false;
  });
  wait();
}

function resumeNext(): void {
  for (const socket of unread.splice(0, MAX_DISCARDED_READS)) socket.resume();
  if (unread.length > 0) onNextIteration(resumeNext);
}

/** Polls until no socket is lingering. */
async function poll(): Promise<void> {
  polling = true;
  let wait = MIN_WAIT_MS;
  while (lingering.size > 0) {
    // A socket added during the read waits for the next poll: the tables may be older than the data it sent.
    const batch = [...lingering];
    const table = batch.some(([, { row }]) => row !== undefined) ? await readTables() : "";
    const now = performance.now();
    let progress = false;
    for (const [socket, state] of batch) {
      if (!lingering.has(socket)) continue;
      const queued = state.row === undefined ? 0 : sendQueue(table, state.row);
      const left = unsentBytes(socket) + (queued ?? 0);
      if (left !== state.left) {
        state.left = left;
        state.changedAt = now;
        progress = true;
      }
      const delivered = left === 0 && (queued !== undefined || now - state.changedAt >= BLIND_WAIT_MS);
      if (!delivered && now - state.changedAt < MAX_STALL_MS) continue;
      lingering.delete(socket);
      reset(socket);
    }
    wait = progress ? MIN_WAIT_MS : Math.min(2 * wait, MAX_WAIT_MS);
    const delay = Math.max(wait, (table?.length ?? 0) / BYTES_PER_MS);
    if (lingering.size > 0) await new Promise<void>((done) => void startTimeout(delay, done));
  }
  polling = false;
}

/** Returns a socket's addresses as listed in /proc/net/tcp: hex, each 32-bit word in native byte order. */
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

/** Returns the kernel's tables of TCP sockets; undefined if they are not available. */
async function readTables(): Promise<string | undefined> {
  const read = (path: string) => readFile(path, "latin1").catch(() => undefined);
  const [tcp4, tcp6] = await Promise.all([read("/proc/self/net/tcp"), read("/proc/self/net/tcp6")]);
  return tcp4 === undefined ? undefined : `${tcp4}${tcp6 ?? ""}`;
}

/** Returns the unacknowledged bytes of a row; undefined if unknown or if the kernel has closed the connection. */
function sendQueue(table: string | undefined, row: string): number | undefined {
  if (table === undefined) return undefined;
  const start = table.indexOf(row);
  if (start < 0) return undefined;
  // After the addresses: two digits of state, a space, eight digits of send queue.
  const queue = start + row.length + 3;
  return Number.parseInt(table.slice(queue, queue + 8), 16);
}
