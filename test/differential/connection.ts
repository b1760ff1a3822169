/** Runs a case: one connection to a daemon, and the daemon's connection to the target. */
import { once } from "node:events";
import { readSync, writeSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { type RawSession, rawOpen, rawSessionKeys } from "../support/raw-peer.ts";
import { bytesOf, type Case, HANDSHAKE, NONCE, PACKET } from "./cases.ts";
import { ClientHandshake, packetsOf } from "./stream.ts";

/** How a direction ended: with EOF, with a reset, by a reset of the peer's own, or not at all in the time allowed. */
export type End = "fin" | "reset" | "own reset" | "open";

/** What happened in one connection. */
export interface Observation {
  /** Number of bytes that the client has sent. */
  readonly sent: number;
  /** At the client. */
  readonly wire: {
    readonly bytes: number;
    /** The server's handshake message. */
    readonly message: "none" | "incomplete" | "valid" | "invalid";
    /** The data of the packets; undefined if one of them is invalid. */
    readonly data: Buffer | undefined;
    /** Number of bytes after the last whole packet. */
    readonly trailing: number;
    readonly end: End;
  };
  /** At the target; undefined if the daemon has not connected to it. */
  readonly target: { readonly data: Buffer; readonly end: End } | undefined;
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
  readonly #handshake: ClientHandshake;
  readonly #activity = new Activity();
  readonly #patience: number;
  #target: Side | undefined;
  #targets = 0;
  #sent = 0;
  #isOver = false;

  /** @param patience - time without any activity after which the connection is taken to stay open, in ms. */
  constructor(it: Case, handshake: ClientHandshake, patience: number) {
    this.#case = it;
    this.#handshake = handshake;
    this.#patience = patience;
  }

  /** Plays the target's part on a connection from the daemon. */
  onTarget(socket: Socket): void {
    if (this.#isOver) {
      socket.on("error", () => {}).resetAndDestroy();
      return;
    }
    this.#targets += 1;
    const side = new Side(socket, this.#activity);
    this.#target = side;
    void this.#playTarget(side);
    this.#activity.note();
  }

  async #playTarget(side: Side): Promise<void> {
    const { answer, when, end } = this.#case.target;
    const activity = this.#activity;
    if (when === "data") await activity.when(() => side.received > 0 || side.isOver);
    if (when === "end") await activity.when(() => side.isOver);
    if (side.isReset) return;
    await side.write(bytesOf(this.#case, "answer", answer));
    if (end === "hold") return;
    if (end === "reset") {
      // Before the client ends, which waits longer.
      if (this.#case.endsLate) await activity.until(() => side.isReset, this.#patience / 2);
      if (!side.isReset) side.reset();
      return;
    }
    if (end === "echo") await activity.when(() => side.isOver);
    side.socket.end();
  }

  /**
   * Plays the client's part, and observes both ends until they are closed or nothing more happens.
   *
   * @param expectsTarget - returns true if the daemon should connect to the target of a client that has sent this many
   * bytes.
   */
  async play(port: number, expectsTarget: (sent: number) => boolean): Promise<Observation> {
    const activity = this.#activity;
    const socket = connect({ port, host: "127.0.0.1", allowHalfOpen: true });
    await once(socket, "connect");
    const client = new Side(socket, activity);
    const message = () => client.data.subarray(NONCE, HANDSHAKE);
    await this.#send(client);
    const { end, endsLate } = this.#case;
    // The daemon has accepted the connection when its nonce arrives.
    await activity.until(() => client.received >= NONCE || client.isOver, LONG_MS);
    if (endsLate) await activity.until(() => client.isOver, this.#patience);
    if (end === "fin") client.socket.end();
    else if (end === "reset") client.reset();
    const needsTarget = expectsTarget(this.#sent);
    const isOver = () => client.isOver && (this.#target === undefined ? !needsTarget : this.#target.isOver);
    const mayStayOpen = end === "hold" || this.#case.target.end === "hold";
    await activity.until(isOver, mayStayOpen ? this.#patience : Math.max(LONG_MS, this.#patience));

    const target = this.#target;
    const serverMessage = message();
    const packets = client.data.subarray(HANDSHAKE);
    const opened = serverMessage.length < 288 ? undefined : this.#open(client.data);
    const observation: Observation = {
      sent: this.#sent,
      wire: {
        bytes: client.received,
        message: this.#judge(client.data.subarray(0, NONCE), serverMessage),
        data: packets.length === 0 ? packets : opened,
        trailing: packets.length % PACKET,
        end: client.end,
      },
      target: target && { data: target.data, end: target.end },
    };
    this.#isOver = true;
    if (this.#targets > 1) throw new Error("the daemon has connected to the target more than once");
    client.socket.resetAndDestroy();
    target?.socket.resetAndDestroy();
    return observation;
  }

  /** Sends the client's stream, up to the case's length, as far as the daemon's bytes allow. */
  async #send(client: Side): Promise<void> {
    const { isEager, isJoined, excess, length, value, configuration } = this.#case;
    const activity = this.#activity;
    let pending = Buffer.alloc(0);
    let made = 0;
    const has = (size: number) => client.received >= size;
    /** Waits for bytes from the daemon, after sending what does not depend on them. */
    const received = async (size: number): Promise<boolean> => {
      if (has(size)) return true;
      await this.#write(client, pending);
      pending = Buffer.alloc(0);
      await activity.until(() => has(size) || client.isOver, LONG_MS);
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
      if (!add(this.#handshake.sentNonce()) || !(await received(NONCE))) return;
      if (!add(this.#handshake.message(client.data.subarray(0, NONCE)))) return;
      if (!isJoined && !(await received(HANDSHAKE + (learnsKeys ? PACKET : 0)))) return;
      const [keys] = this.#keys(client.data);
      if (keys !== undefined) add(packetsOf(this.#case, keys));
    };
    await steps();
    await this.#write(client, Buffer.concat([pending, bytesOf(this.#case, "excess", excess)]));
  }

  /** Writes bytes in segments that end at the case's cuts. */
  async #write(client: Side, bytes: Buffer): Promise<void> {
    const start = this.#sent;
    const inside = this.#case.cuts.filter((cut) => cut > start && cut < start + bytes.length);
    const ends = [...inside, start + bytes.length];
    for (const end of ends) {
      if (client.isReset || bytes.length === 0) return;
      await client.write(bytes.subarray(this.#sent - start, end - start));
      this.#sent = end;
      if (this.#case.pause > 0) await sleep(this.#case.pause);
    }
  }

  /** Returns the keys that are possible, the right ones alone if the daemon has sent a packet. */
  #keys(received: Buffer): RawSession[] {
    const message = received.length < HANDSHAKE ? undefined : received.subarray(NONCE, HANDSHAKE);
    const nonces = Buffer.concat([this.#handshake.nonce, received.subarray(0, NONCE)]);
    const secret = this.#handshake.secret;
    const candidates = this.#handshake
      .sharedValues(message)
      .map((shared) => rawSessionKeys(secret, nonces, shared));
    const first = received.subarray(HANDSHAKE, HANDSHAKE + PACKET);
    if (first.length < PACKET) return candidates;
    return candidates.filter(({ down }) => isValid(() => rawOpen(down, 0, first)));
  }

  /** Returns the data of the packets received; undefined if one is invalid. */
  #open(received: Buffer): Buffer | undefined {
    const [keys] = this.#keys(received);
    if (keys === undefined) return undefined;
    const data: Buffer[] = [];
    for (let at = HANDSHAKE; at + PACKET <= received.length; at += PACKET) {
      try {
        data.push(rawOpen(keys.down, data.length, received.subarray(at, at + PACKET)));
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
