/**
 * Lines: keys and keystream, computed ahead, of the ciphers that process short messages now. One AES call for eight
 * packets takes little longer than one for a single packet. A line belongs to one cipher at a time, and is wiped when it
 * is released.
 */
import { PACKET_BLOCKS } from "../packet.ts";
import type { Upkeep } from "./engine.ts";

/** Packets' keystream in a line. */
export const LINE_PACKETS = 8;
/** Offset of the keystream in a line, after key ^ ipad and the state after key ^ opad. */
export const LINE_KEYSTREAM_OFFSET = 128;
const LINE_SIZE = LINE_KEYSTREAM_OFFSET + LINE_PACKETS * PACKET_BLOCKS * 16;
/** Number of lines; further ciphers compute the keystream of each message when it arrives. */
const MAX_LINES = 1024;
/** Bytes of all lines. */
export const LINES_SIZE = MAX_LINES * LINE_SIZE;

/** What owns a line. */
export interface LineOwner {
  /** Called when there is time: computes the keystream of the next packets, unless that has been done meanwhile. */
  refillLine(): void;
  /** Called when the line has not been used for a while: releases it. */
  releaseLine(): void;
}

/** A line of a cipher. */
export class Line {
  readonly address: number;
  /** Keys, padding and keystream. */
  readonly bytes: Buffer;
  readonly #keystream: Buffer;
  owner: LineOwner | undefined;
  /** Whether the line was used since `releaseUnused` looked. */
  isUsed = false;
  /** Number of the packet whose keystream comes first, in two halves; -1 if there is no keystream. */
  high = -1;
  low = 0;

  constructor(address: number, bytes: Buffer) {
    this.address = address;
    this.bytes = bytes;
    this.#keystream = bytes.subarray(LINE_KEYSTREAM_OFFSET);
  }

  /** Sets the keystream of `LINE_PACKETS` packets, from a packet number on. */
  setKeystream(keystream: Uint8Array, high: number, low: number): void {
    this.#keystream.set(keystream);
    this.high = high;
    this.low = low;
  }

  wipe(): void {
    this.bytes.fill(0);
    this.high = -1;
  }
}

/** The lines of an engine. The engine's user schedules their upkeep: see `Upkeep` in engine.ts. */
export class KeystreamLines implements Upkeep {
  onWork: (() => void) | undefined;
  readonly #view: (address: number, length: number) => Buffer;
  readonly #start: number;
  #created = 0;
  readonly #free: Line[] = [];
  readonly #used = new Set<Line>();
  /** Owners of lines whose keystream has been used up. */
  #exhausted: LineOwner[] = [];

  /**
   * @param view - returns a view of the memory.
   * @param start - address of the first line.
   */
  constructor(view: (address: number, length: number) => Buffer, start: number) {
    this.#view = view;
    this.#start = start;
  }

  /** Returns a line without keys and keystream; undefined if all are in use. */
  acquire(owner: LineOwner): Line | undefined {
    let line = this.#free.pop();
    if (line === undefined) {
      if (this.#created === MAX_LINES) return undefined;
      const address = this.#start + this.#created * LINE_SIZE;
      line = new Line(address, this.#view(address, LINE_SIZE));
      this.#created += 1;
    }
    line.owner = owner;
    line.isUsed = true;
    this.#used.add(line);
    this.onWork?.();
    return line;
  }

  /** Requests that an owner's line is refilled when there is time. */
  requestRefill(owner: LineOwner): void {
    if (this.onWork === undefined) return;
    this.#exhausted.push(owner);
    this.onWork();
  }

  refill(): void {
    const owners = this.#exhausted;
    this.#exhausted = [];
    for (const owner of owners) owner.refillLine();
  }

  /** Wipes a line and makes it available again. */
  release(line: Line): void {
    line.wipe();
    line.owner = undefined;
    this.#used.delete(line);
    this.#free.push(line);
  }

  releaseUnused(): boolean {
    for (const line of this.#used) {
      if (line.isUsed) line.isUsed = false;
      else line.owner?.releaseLine();
    }
    return this.#used.size > 0;
  }
}
