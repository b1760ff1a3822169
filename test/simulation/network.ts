/**
 * TCP connections between endpoints in memory, as Linux serves them to programs: limited buffers on both sides, data
 * that arrives in pieces and late, half-closes, resets, refusals, hosts that vanish.
 *
 * An endpoint is what a descriptor is to a program. Its methods return what the system calls do, with negative error
 * numbers. Both the simulated handles of Node's sockets and the simulated peers use it.
 */
import type { Agenda } from "./agenda.ts";
import { ByteQueue } from "./byte-queue.ts";
import type { SimulatedClock } from "./clock.ts";
import type { Random } from "./random.ts";
import {
  EAGAIN,
  ECONNREFUSED,
  ECONNRESET,
  EHOSTUNREACH,
  EMFILE,
  ENOTCONN,
  EPIPE,
  ETIMEDOUT,
} from "./system-errors.ts";
import type { Trace } from "./trace.ts";

/** An IPv4 address and a port. */
export interface SocketAddress {
  readonly host: string;
  readonly port: number;
}

export function addressText({ host, port }: SocketAddress): string {
  return `${host}:${port}`;
}

/** What the path between two hosts, and the buffers at its ends, are like. */
export interface PathProfile {
  /** Minimum time that a segment takes, in ms. */
  readonly delay: number;
  /** Maximum additional time, in ms. */
  readonly jitter: number;
  /** Maximum bytes of a segment; smaller ones occur. */
  readonly maxSegment: number;
  /** Bytes that a sender's kernel accepts before they are acknowledged. */
  readonly sendBuffer: number;
  /** Bytes that a receiver's kernel holds. */
  readonly receiveBuffer: number;
  /** Probability that a write is accepted in part only, although there is space. */
  readonly shortWrites: number;
}

/** Changes the data on its way in one direction: returns the pieces that arrive instead of `bytes`. */
export type Tamper = (bytes: Buffer) => readonly (Buffer | "fin" | "rst")[];

/** Time after which a kernel gives up to have data acknowledged, in ms: 15 retransmissions. */
const RETRANSMISSION_MS = 924_600;
/** Time after which a kernel gives up an idle connection with keep-alive, in ms. */
const KEEP_ALIVE_MS = 7_875_000;
/** Time after which a kernel gives up to connect, in ms. */
const CONNECT_MS = 127_000;
/** Times of the retransmissions of a SYN, in ms since the one before. */
const SYN_RETRIES_MS = [1000, 2000, 4000, 8000, 16_000];

/** How a host answers to attempts to connect where nothing listens. */
export type Silence = "refuse" | "ignore" | "unreachable";

/** A socket that listens. */
export class ListeningPort {
  readonly address: SocketAddress;
  readonly backlog: number;
  /** Established connections that are not accepted. */
  readonly queue: Endpoint[] = [];
  /** Called when a connection is added to the queue. */
  onChange: () => void = () => {};
  readonly #close: () => void;

  constructor(address: SocketAddress, backlog: number, close: () => void) {
    this.address = address;
    this.backlog = backlog;
    this.#close = close;
  }

  /** Stops listening, and resets the connections that are not accepted. */
  close(): void {
    this.#close();
    for (const endpoint of this.queue.splice(0)) endpoint.reset();
  }
}

/** One end of a connection. */
export class Endpoint {
  readonly network: Network;
  readonly id: number;
  readonly local: SocketAddress;
  readonly remote: SocketAddress;
  readonly profile: PathProfile;
  /** The other end; undefined until the connection is established. */
  peer: Endpoint | undefined;
  /** Called when it may have become readable or writable, or has failed. */
  onChange: () => void = () => {};
  /** Applied to the data that this end sends. */
  tamper: Tamper | undefined;
  keepAlive = false;
  /** Bytes that have arrived. */
  arrived = 0;
  readonly #unsent = new ByteQueue();
  readonly #received = new ByteQueue();
  /** Bytes on their way that are not acknowledged. */
  #inFlight = 0;
  #lastArrival = 0;
  /** The error that the next system call reports (the kernel's `sk_err`). */
  #error = 0;
  #isShutDown = false;
  #finSent = false;
  #finAcknowledged = false;
  #finReceived = false;
  /** True once the connection was reset or has timed out. */
  #isDead = false;
  /** True once the program has closed its descriptor. */
  #isClosed = false;
  /** True if nothing that this end sends arrives any more, and nothing reaches it. */
  #hasVanished = false;

  constructor(
    network: Network,
    id: number,
    local: SocketAddress,
    remote: SocketAddress,
    profile: PathProfile,
  ) {
    this.network = network;
    this.id = id;
    this.local = local;
    this.remote = remote;
    this.profile = profile;
  }

  get isReadable(): boolean {
    return this.#received.length > 0 || this.#finReceived || this.#isDead || this.#error !== 0;
  }

  get isWritable(): boolean {
    return this.#space > 0 || this.#isDead || this.#error !== 0;
  }

  /** True once neither side sends any more (POLLHUP). */
  get hasHungUp(): boolean {
    return this.#isDead || (this.#finReceived && this.#isShutDown);
  }

  get hasError(): boolean {
    return this.#error !== 0;
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  get isShutDown(): boolean {
    return this.#isShutDown;
  }

  get hasUnread(): boolean {
    return this.#received.length > 0;
  }

  /** True once the connection was reset by either side, or has timed out. */
  get isDead(): boolean {
    return this.#isDead;
  }

  /** Bytes, and the end, that the other kernel has not acknowledged. */
  get unacknowledged(): number {
    return this.#unsent.length + this.#inFlight + (this.#isShutDown && !this.#finAcknowledged ? 1 : 0);
  }

  /** True if the kernel still knows the connection. */
  get isListed(): boolean {
    return !this.#isDead && !(this.#finReceived && this.#finAcknowledged);
  }

  get #space(): number {
    return this.profile.sendBuffer - this.#unsent.length - this.#inFlight;
  }

  /** Moves received bytes to `target`. Returns their number, 0 at the end, or an error. */
  read(target: Uint8Array): number {
    if (this.#received.length > 0) {
      const length = this.#received.read(target);
      this.peer?.transmit();
      return length;
    }
    if (this.#finReceived) return 0;
    if (this.#error !== 0) return this.#takeError();
    return this.#isDead ? 0 : EAGAIN;
  }

  /** Returns the number of bytes accepted, or an error. */
  write(bytes: Uint8Array): number {
    if (this.#error !== 0) return this.#takeError();
    if (this.#isDead || this.#isShutDown) return EPIPE;
    if (bytes.length === 0) return 0;
    let length = Math.min(bytes.length, this.#space);
    if (length <= 0) return EAGAIN;
    const { random } = this.network;
    if (length > 1 && random.chance(this.profile.shortWrites)) length = random.between(1, length);
    this.#unsent.push(Buffer.from(bytes.subarray(0, length)));
    this.transmit();
    return length;
  }

  /** Half-closes. */
  shutdown(): number {
    if (this.#isDead || this.peer === undefined) return ENOTCONN;
    this.#isShutDown = true;
    this.transmit();
    return 0;
  }

  /** Closes the descriptor. The kernel still sends what was written, unless received data was not read. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.onChange = () => {};
    if (this.#received.length > 0) this.#sendReset();
    else if (!this.#isDead) {
      this.#isShutDown = true;
      this.transmit();
    }
  }

  /** Closes the descriptor with a reset: what was written and not sent is discarded. */
  reset(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.onChange = () => {};
    this.#sendReset();
  }

  /** Lets the host of this end vanish from the network without a trace. */
  vanish(): void {
    this.#hasVanished = true;
    this.onChange = () => {};
    this.peer?.giveUpLater();
  }

  /** Reports a timeout when the kernel would. */
  giveUpLater(): void {
    if (this.unacknowledged > 0) this.network.after(RETRANSMISSION_MS, () => this.#fail(ETIMEDOUT));
    else if (this.keepAlive) this.network.after(KEEP_ALIVE_MS, () => this.#fail(ETIMEDOUT));
  }

  /** Sends as much as the other side's buffer has space for. */
  transmit(): void {
    const { peer } = this;
    if (peer === undefined || this.#isDead) return;
    while (this.#unsent.length > 0) {
      const window = peer.#window(this.#inFlight);
      if (window <= 0) return;
      const bytes = this.#unsent.shift(
        Math.min(window, this.network.random.between(1, this.profile.maxSegment)),
      );
      this.#inFlight += bytes.length;
      this.#sendData(peer, bytes);
    }
    if (!this.#isShutDown || this.#finSent) return;
    this.#finSent = true;
    this.#send(() => {
      this.#finAcknowledged = true;
      peer.#receiveFin();
    });
  }

  #window(inFlight: number): number {
    // Data for a descriptor that is closed is not stored, but answered with a reset.
    if (this.#isClosed) return Number.POSITIVE_INFINITY;
    return this.profile.receiveBuffer - this.#received.length - inFlight;
  }

  #sendData(peer: Endpoint, bytes: Buffer): void {
    const pieces = this.tamper?.(bytes) ?? [bytes];
    for (const piece of pieces) {
      this.#send(() => {
        if (piece === "fin") peer.#receiveFin();
        else if (piece === "rst") peer.#receiveReset();
        else peer.#receiveData(piece);
      });
    }
    this.#send(() => {
      if (this.#isDead) return;
      this.#inFlight -= bytes.length;
      this.transmit();
      this.onChange();
    });
  }

  /** Calls `arrive` after the time that a segment takes, and after everything sent before. */
  #send(arrive: () => void): void {
    const { network, profile } = this;
    const { clock, random } = network;
    const time =
      clock.now + profile.delay + (profile.jitter > 0 ? random.below(8) * (profile.jitter / 8) : 0);
    this.#lastArrival = Math.max(this.#lastArrival, time);
    network.agenda.add(this.#lastArrival, () => {
      if (!this.#hasVanished && !this.peer!.#hasVanished) arrive();
    });
  }

  #sendReset(): void {
    if (this.#isDead || (this.#finReceived && this.#finAcknowledged)) return;
    this.#die();
    const { peer } = this;
    if (peer !== undefined) this.#send(() => peer.#receiveReset());
  }

  #receiveData(bytes: Buffer): void {
    if (this.#isDead) return;
    if (this.#isClosed) {
      this.#sendReset();
      return;
    }
    if (this.#finReceived) return;
    this.network.trace.record("arrived", this.id, bytes.length);
    this.arrived += bytes.length;
    this.#received.push(bytes);
    this.onChange();
  }

  #receiveFin(): void {
    if (this.#isDead) return;
    this.network.trace.record("fin", this.id);
    this.#finReceived = true;
    this.onChange();
  }

  #receiveReset(): void {
    if (this.#isDead || (this.#finReceived && this.#finAcknowledged)) return;
    this.network.trace.record("rst", this.id);
    this.#fail(this.#finReceived && !this.#isShutDown ? EPIPE : ECONNRESET);
  }

  #fail(error: number): void {
    if (this.#isDead) return;
    this.#die();
    this.#error = error;
    this.onChange();
  }

  #die(): void {
    this.#isDead = true;
    this.#unsent.clear();
    this.#inFlight = 0;
  }

  #takeError(): number {
    const error = this.#error;
    this.#error = 0;
    return error;
  }
}

/** All hosts of a world. */
export class Network {
  readonly clock: SimulatedClock;
  /** What is to happen outside the process under test. */
  readonly agenda: Agenda;
  readonly random: Random;
  readonly trace: Trace;
  /** Returns what the path between two addresses is like. */
  readonly profileOf: (from: SocketAddress, to: SocketAddress) => PathProfile;
  /** Called with both ends of each new connection: the connecting one first. */
  onEstablished: (near: Endpoint, far: Endpoint) => void = () => {};
  readonly #ports = new Map<string, ListeningPort>();
  readonly #silent = new Map<string, Silence>();
  #lastId = 0;
  #lastPort = 20_000;

  constructor(
    clock: SimulatedClock,
    agenda: Agenda,
    random: Random,
    trace: Trace,
    profileOf: (from: SocketAddress, to: SocketAddress) => PathProfile,
  ) {
    this.clock = clock;
    this.agenda = agenda;
    this.random = random;
    this.trace = trace;
    this.profileOf = profileOf;
  }

  after(delay: number, action: () => void): void {
    this.agenda.add(this.clock.now + delay, action);
  }

  listen(address: SocketAddress, backlog: number): ListeningPort {
    const text = addressText(address);
    const port = new ListeningPort(address, backlog, () => {
      if (this.#ports.get(text) === port) this.#ports.delete(text);
    });
    this.#ports.set(text, port);
    return port;
  }

  /** Sets what happens to attempts to connect to an address where nothing listens. */
  setSilence(address: SocketAddress, silence: Silence): void {
    this.#silent.set(addressText(address), silence);
  }

  /**
   * Connects.
   *
   * @param onOutcome - called with 0, or with an error.
   * @returns the near end, which can be used once connected.
   */
  connect(from: string, remote: SocketAddress, onOutcome: (status: number) => void): Endpoint {
    this.#lastPort += 1;
    const local = { host: from, port: this.#lastPort };
    const profile = this.profileOf(local, remote);
    this.#lastId += 2;
    const near = new Endpoint(this, this.#lastId - 1, local, remote, profile);
    const attempt = (retries: readonly number[]) => {
      if (near.isClosed) return;
      const text = addressText(remote);
      const port = this.#ports.get(text);
      const silence = this.#silent.get(text);
      if (port !== undefined && silence !== "ignore") {
        if (port.queue.length < port.backlog) this.#establish(near, port, onOutcome);
        else if (retries.length > 0) this.after(retries[0]!, () => attempt(retries.slice(1)));
        else this.after(CONNECT_MS, () => onOutcome(ETIMEDOUT));
        return;
      }
      if (silence === "ignore") this.after(CONNECT_MS, () => onOutcome(ETIMEDOUT));
      else
        this.after(profile.delay, () => onOutcome(silence === "unreachable" ? EHOSTUNREACH : ECONNREFUSED));
    };
    this.after(profile.delay, () => attempt(SYN_RETRIES_MS));
    return near;
  }

  #establish(near: Endpoint, port: ListeningPort, onOutcome: (status: number) => void): void {
    const far = new Endpoint(this, near.id + 1, near.remote, near.local, near.profile);
    near.peer = far;
    far.peer = near;
    this.trace.record("established", near.id);
    this.onEstablished(near, far);
    port.queue.push(far);
    port.onChange();
    this.after(near.profile.delay, () => onOutcome(0));
  }
}

/** Numbers of descriptors that no real one has. */
const FIRST_DESCRIPTOR = 2 ** 30;

/** The descriptors of the process under test. */
export class Descriptors {
  readonly #limit: number;
  readonly #endpoints = new Map<number, Endpoint>();
  #last = FIRST_DESCRIPTOR;
  used = 0;

  constructor(limit: number) {
    this.#limit = limit;
  }

  /** Takes a descriptor. Returns 0, or an error. */
  open(): number {
    if (this.used >= this.#limit) return EMFILE;
    this.used += 1;
    return 0;
  }

  /** Returns the number of the descriptor that was taken, which now belongs to `endpoint`. */
  number(endpoint: Endpoint): number {
    this.#last += 1;
    this.#endpoints.set(this.#last, endpoint);
    return this.#last;
  }

  endpoint(descriptor: number): Endpoint | undefined {
    return this.#endpoints.get(descriptor);
  }

  close(descriptor: number): void {
    this.#endpoints.delete(descriptor);
    this.used -= 1;
  }
}
