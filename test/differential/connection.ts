/** Runs a case: one connection to a daemon, and one from it. */
import { once } from "node:events";
import { readSync, writeSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { rawOpen } from "../support/raw-peer.ts";
import { bytesOf, type Case, HANDSHAKE, NONCE, PACKET } from "./cases.ts";
import { type Handshake, type Keys, packetsOf } from "./stream.ts";

/** How a direction ended: with EOF, with a reset, by a reset of the peer's own, or not at all in the time allowed. */
export type End = "fin" | "reset" | "own reset" | "open";

/** What happened in one connection. */
export interface Observation {
  /** Number of bytes that we have sent. */
  readonly sent: number;
  /** On the encrypted connection. */
  readonly wire: {
    readonly bytes: number;
    /** The daemon's handshake message. */
    readonly message: "none" | "incomplete" | "valid" | "invalid";
    /** The data of the packets; undefined if one of them is invalid. */
    readonly data: Buffer | undefined;
    /** Number of bytes after the last whole packet. */
    readonly trailing: number;
    readonly end: End;
  };
  /** At the plaintext side; undefined if the daemon has not connected to its target. */
  readonly plaintext: { readonly data: Buffer; readonly end: End } | undefined;
}

/**
 * One end of a connection under observation. Node destroys a socket when a write fails, with all that it has received,
 * and may report a reset that arrives together with data as EOF. So this writes to the descriptor, one call for each
 * segment, and asks the descriptor how the connection has ended.
 */
class Side {
  readonly socket: Socket;
  readonly #activity: Activity;
  readonly #chunks: Buffer[] = [];
  received = 0;
  end: End = "open";
  /** True if a write has failed, which takes the error that a read would have returned. */
  #hasWriteError = false;

  constructor(socket: Socket, activity: Activity) {
    this.socket = socket;
    this.#activity = activity;
    socket.setNoDelay(true);
    socket.on("data", (chunk) => {
      this.#chunks.push(chunk);
      this.received += chunk.length;
      activity.note();
    });
    socket.on("end", () => this.#ended(this.#isReset() ? "reset" : "fin"));
    socket.on("error", () => this.#ended("reset"));
    socket.on("close", () => this.#ended("reset"));
  }

  get data(): Buffer {
    return Buffer.concat(this.#chunks);
  }

  get isOver(): boolean {
    return this.end !== "open";
  }

  get isReset(): boolean {
    return this.end === "reset" || this.end === "own reset";
  }

  /** Writes all bytes, unless the connection is closed. */
  async write(bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.length && !this.#hasWriteError; ) {
      const fd = descriptorOf(this.socket);
      if (fd === undefined) return;
      try {
        at += writeSync(fd, bytes, at);
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== "EAGAIN") this.#hasWriteError = true;
        else await sleep(1);
      }
    }
  }

  reset(): void {
    this.#ended("own reset");
    this.socket.resetAndDestroy();
  }

  #isReset(): boolean {
    const fd = descriptorOf(this.socket);
    if (this.#hasWriteError || fd === undefined) return this.#hasWriteError;
    try {
      readSync(fd, Buffer.alloc(1));
      return false;
    } catch (error) {
      return (error as NodeJS.ErrnoException).code !== "EAGAIN";
    }
  }

  #ended(how: End): void {
    if (this.end === "open") this.end = how;
    this.#activity.note();
  }
}

function descriptorOf(socket: Socket): number | undefined {
  const { _handle: handle } = socket as unknown as { readonly _handle: { readonly fd: number } | null };
  return handle === null || handle.fd < 0 ? undefined : handle.fd;
}

/** Time in which a busy machine does what it must do sooner or later, in ms. */
const LONG_MS = 3000;

/** Waits for what happens in a connection. */
class Activity {
  #waiting: (() => void)[] = [];

  /** Records that something has happened. */
  note(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const resolve of waiting) resolve();
  }

  /** Resolves when the condition holds. */
  async when(condition: () => boolean): Promise<void> {
    while (!condition()) await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }

  /** Resolves when the condition holds, or when nothing has happened for `patience` ms. */
  async until(condition: () => boolean, patience: number): Promise<void> {
    let isQuiet = false;
    while (!condition() && !isQuiet) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(() => {
          // If this process was busy, what has arrived in the meantime is read first.
          setImmediate(() => {
            isQuiet = true;
            resolve();
          });
        }, patience);
        this.#waiting.push(() => {
          clearTimeout(timer);
          resolve();
        });
      });
    }
  }
}

/** A case that runs on one daemon. */
export class Run {
  readonly #case: Case;
  readonly #handshake: Handshake;
  readonly #activity = new Activity();
  readonly #patience: number;
  /** The connection from the daemon. */
  #accepted: Side | undefined;
  #connections = 0;
  #sent = 0;
  #isOver = false;

  /** @param patience - time without any activity after which the connection is taken to stay open, in ms. */
  constructor(it: Case, handshake: Handshake, patience: number) {
    this.#case = it;
    this.#handshake = handshake;
    this.#patience = patience;
  }

  /** Takes a connection from the daemon: to the target of `-d`, or to us as the server of `-e`. */
  onConnection(socket: Socket): void {
    if (this.#isOver) {
      socket.on("error", () => {}).resetAndDestroy();
      return;
    }
    this.#connections += 1;
    this.#accepted = new Side(socket, this.#activity);
    if (this.#case.role === "client") void this.#playPlaintext(this.#accepted);
    this.#activity.note();
  }

  async #playPlaintext(side: Side): Promise<void> {
    const { answer, when, end } = this.#case.plaintext;
    const activity = this.#activity;
    if (when === "data") await activity.when(() => side.received > 0 || side.isOver);
    if (when === "end") await activity.when(() => side.isOver);
    if (side.isReset) return;
    await side.write(bytesOf(this.#case, "answer", answer));
    if (end === "hold") return;
    if (end === "reset") {
      // Before we end the encrypted side, which waits longer.
      if (this.#case.endsLate) await activity.until(() => side.isReset, this.#patience / 2);
      if (!side.isReset) side.reset();
      return;
    }
    if (end === "echo") await activity.when(() => side.isOver);
    side.socket.end();
  }

  /**
   * Plays both sides, and observes them until they are closed or nothing more happens.
   *
   * @param port - on which the daemon listens.
   * @param expectsTarget - returns true if the daemon should connect to the target of a client that has sent this many
   * bytes.
   */
  async play(port: number, expectsTarget: (sent: number) => boolean): Promise<Observation> {
    const activity = this.#activity;
    const socket = connect({ port, host: "127.0.0.1", allowHalfOpen: true });
    await once(socket, "connect");
    const connected = new Side(socket, activity);
    const isClient = this.#case.role === "client";
    if (!isClient) {
      void this.#playPlaintext(connected);
      await activity.until(() => this.#accepted !== undefined, LONG_MS);
      if (this.#accepted === undefined) throw new Error("the daemon does not connect");
    }
    const wire = isClient ? connected : this.#accepted!;
    await this.#send(wire);
    const { end, endsLate } = this.#case;
    // With -d, the daemon has accepted the connection when its nonce arrives.
    await activity.until(() => wire.received >= NONCE || wire.isOver, LONG_MS);
    if (endsLate) await activity.until(() => wire.isOver, this.#patience);
    if (end === "fin") wire.socket.end();
    else if (end === "reset") wire.reset();
    const needsTarget = expectsTarget(this.#sent);
    const plaintext = () => (isClient ? this.#accepted : connected);
    const isOver = () => wire.isOver && (plaintext()?.isOver ?? !needsTarget);
    const mayStayOpen = end === "hold" || this.#case.plaintext.end === "hold";
    await activity.until(isOver, mayStayOpen ? this.#patience : Math.max(LONG_MS, this.#patience));

    const message = wire.data.subarray(NONCE, HANDSHAKE);
    const packets = wire.data.subarray(HANDSHAKE);
    const plain = plaintext();
    const observation: Observation = {
      sent: this.#sent,
      wire: {
        bytes: wire.received,
        message: this.#judge(wire.data.subarray(0, NONCE), message),
        data: packets.length === 0 ? packets : this.#open(wire.data),
        trailing: packets.length % PACKET,
        end: wire.end,
      },
      plaintext: plain && { data: plain.data, end: plain.end },
    };
    this.#isOver = true;
    if (this.#connections > 1) throw new Error("the daemon has connected more than once");
    for (const side of [connected, this.#accepted]) side?.socket.resetAndDestroy();
    return observation;
  }

  /** Sends our stream, up to the case's length, as far as the daemon's bytes allow. */
  async #send(wire: Side): Promise<void> {
    const { role, isEager, isJoined, excess, length, value, configuration } = this.#case;
    const activity = this.#activity;
    let pending = Buffer.alloc(0);
    let made = 0;
    const has = (size: number) => wire.received >= size;
    /** Waits for bytes from the daemon, after sending what does not depend on them. */
    const received = async (size: number): Promise<boolean> => {
      if (has(size)) return true;
      await this.#write(wire, pending);
      pending = Buffer.alloc(0);
      await activity.until(() => has(size) || wire.isOver, LONG_MS);
      return has(size);
    };
    const add = (bytes: Buffer): boolean => {
      const kept = bytes.subarray(0, Math.max(0, length - made));
      made += kept.length;
      pending = Buffer.concat([pending, kept]);
      return made < length;
    };
    const learnsKeys = value === "p-1" && configuration !== "weak";
    const steps = async () => {
      if (!isEager && !(await received(NONCE))) return;
      if (!add(this.#handshake.sentNonce())) return;
      // A server sends its message when it has the client's, unless it knows better.
      if (!(await received(role === "server" && !isJoined ? HANDSHAKE : NONCE))) return;
      if (!add(this.#handshake.message(wire.data.subarray(0, NONCE)))) return;
      if (!isJoined && !(await received(HANDSHAKE + (learnsKeys ? PACKET : 0)))) return;
      const [keys] = this.#keys(wire.data);
      if (keys !== undefined) add(packetsOf(this.#case, keys));
    };
    await steps();
    await this.#write(wire, Buffer.concat([pending, bytesOf(this.#case, "excess", excess)]));
  }

  /** Writes bytes in segments that end at the case's cuts. */
  async #write(wire: Side, bytes: Buffer): Promise<void> {
    const start = this.#sent;
    const inside = this.#case.cuts.filter((cut) => cut > start && cut < start + bytes.length);
    const ends = [...inside, start + bytes.length];
    for (const end of ends) {
      if (wire.isReset || bytes.length === 0) return;
      await wire.write(bytes.subarray(this.#sent - start, end - start));
      this.#sent = end;
      if (this.#case.pause > 0) await sleep(this.#case.pause);
    }
  }

  /** Returns the keys that are possible, the right ones alone if the daemon has sent a packet. */
  #keys(received: Buffer): Keys[] {
    const message = received.length < HANDSHAKE ? undefined : received.subarray(NONCE, HANDSHAKE);
    const candidates = this.#handshake
      .sharedValues(message)
      .map((shared) => this.#handshake.keys(received.subarray(0, NONCE), shared));
    const first = received.subarray(HANDSHAKE, HANDSHAKE + PACKET);
    if (first.length < PACKET) return candidates;
    return candidates.filter(({ peer }) => isValid(() => rawOpen(peer, 0, first)));
  }

  /** Returns the data of the packets received; undefined if one is invalid. */
  #open(received: Buffer): Buffer | undefined {
    const [keys] = this.#keys(received);
    if (keys === undefined) return undefined;
    const data: Buffer[] = [];
    for (let at = HANDSHAKE; at + PACKET <= received.length; at += PACKET) {
      try {
        data.push(rawOpen(keys.peer, data.length, received.subarray(at, at + PACKET)));
      } catch {
        return undefined;
      }
    }
    return Buffer.concat(data);
  }

  #judge(nonce: Buffer, message: Buffer): Observation["wire"]["message"] {
    if (message.length === 0) return "none";
    if (message.length < HANDSHAKE - NONCE) return "incomplete";
    return this.#handshake.isValid(nonce, message) ? "valid" : "invalid";
  }
}

function isValid(open: () => unknown): boolean {
  try {
    open();
    return true;
  } catch {
    return false;
  }
}
