/**
 * A simulated program at the plaintext end of a tunnel: a client, or what a target has accepted. It sends a stream of
 * its own, checks that what it receives is that of one other program, and ends as its plan says.
 */
import { contentAt, HEADER_SIZE, isContent, senderOf } from "./content.ts";
import type { Endpoint, Network } from "./network.ts";
import { EAGAIN } from "./system-errors.ts";

/** How a program ends its connection. */
export type Ending =
  /** Half-closes once everything is sent, and closes once the other side has ended too. */
  | "orderly"
  /** The same, but half-closes only after the other side has. */
  | "last"
  /** Never ends. */
  | "never"
  /** Closes, resets or vanishes at a time. */
  | { readonly action: "close" | "reset" | "vanish"; readonly after: number };

/** What a program does. Times are in ms. */
export interface PeerPlan {
  /** Number of bytes to send: 0, or at least those of the header. */
  readonly total: number;
  /** Maximum bytes of a write. */
  readonly maxWrite: number;
  /** Time between two writes. */
  readonly writeInterval: number;
  /** Maximum bytes of a read. */
  readonly maxRead: number;
  /** Time between two reads; `Infinity` if it never reads. */
  readonly readInterval: number;
  /** Time until the first read. */
  readonly readDelay: number;
  readonly ending: Ending;
}

/** What all programs read into. */
const readBuffer = Buffer.allocUnsafeSlow(65_536);

/** A program at one end of a connection. */
export interface Party {
  readonly id: number;
  /** `client` or `target`. */
  readonly name: string;
  /** Number of bytes sent. */
  readonly sent: number;
}

export class Peer implements Party {
  readonly id: number;
  readonly name: string;
  readonly plan: PeerPlan;
  readonly #network: Network;
  readonly #onViolation: (message: string) => void;
  readonly #peers: ReadonlyMap<number, Party>;
  endpoint: Endpoint | undefined;
  /** The port by which the server knows this program, or to which the server has connected from. */
  port: number | undefined;
  /** Bytes that the kernel has accepted. */
  sent = 0;
  received = 0;
  /** The program whose stream this one receives, once that is known. */
  partner: Party | undefined;
  /** True once it has half-closed or closed in order. */
  hasEnded = false;
  /** True if it has closed or reset before both directions had ended, or vanished. */
  hasBrokenOff = false;
  sawEnd = false;
  /** The error that the kernel reported; 0 if there was none. */
  error = 0;
  /** True if it stops reading for ever. */
  readonly neverReads: boolean;
  #start: Buffer = Buffer.alloc(0);
  #mayReadAt: number;
  #mayWriteAt = 0;
  #isScheduled = false;
  #isDone = false;
  /** Called with each read before the stream starts: returns the number of bytes that do not belong to the stream. */
  skipHeader: ((bytes: Buffer) => number) | undefined;

  constructor(
    id: number,
    name: string,
    plan: PeerPlan,
    network: Network,
    peers: ReadonlyMap<number, Party>,
    onViolation: (message: string) => void,
  ) {
    this.id = id;
    this.name = name;
    this.plan = plan;
    this.#network = network;
    this.#peers = peers;
    this.#onViolation = (message) => onViolation(`${name} ${id}: ${message}`);
    this.#mayReadAt = network.clock.now + plan.readDelay;
    this.neverReads = plan.readInterval === Number.POSITIVE_INFINITY;
  }

  /** True once its descriptor is closed. */
  get isDone(): boolean {
    return this.#isDone;
  }

  /** Uses an established connection. */
  attach(endpoint: Endpoint): void {
    this.endpoint = endpoint;
    endpoint.onChange = () => this.#schedule();
    const { ending } = this.plan;
    if (typeof ending === "object") {
      this.#network.after(ending.after, () => this.breakOff(ending.action));
    }
    this.#schedule();
  }

  /** Closes, resets or vanishes now, unless it has closed. */
  breakOff(action: "close" | "reset" | "vanish"): void {
    if (this.#isDone || this.endpoint === undefined) return;
    this.#network.trace.record(action, this.id);
    this.hasBrokenOff = true;
    // The kernel sends what was written, and then the end, if nothing is left unread.
    if (action === "close" && !this.endpoint.hasUnread && !this.endpoint.isDead) this.hasEnded = true;
    this.#isDone = true;
    this.endpoint[action]();
  }

  /** Acts when the kernel has something to report, or a pause is over; once for all that happens at a time. */
  #schedule(delay = 0): void {
    if (this.#isScheduled || this.#isDone) return;
    this.#isScheduled = true;
    this.#network.after(delay, () => {
      this.#isScheduled = false;
      this.#act();
    });
  }

  #act(): void {
    if (this.#isDone) return;
    this.#read();
    this.#write();
    this.#end();
  }

  #read(): void {
    if (this.neverReads) return;
    const endpoint = this.endpoint!;
    const { now } = this.#network.clock;
    while (!this.sawEnd && this.error === 0 && endpoint.isReadable) {
      if (now < this.#mayReadAt) {
        this.#schedule(this.#mayReadAt - now);
        return;
      }
      const length = endpoint.read(readBuffer.subarray(0, this.plan.maxRead));
      if (length === EAGAIN) return;
      this.#network.trace.record("got", this.id, length);
      if (length < 0) this.error = length;
      else if (length === 0) this.#receiveEnd();
      else this.#receive(readBuffer.subarray(0, length));
      this.#mayReadAt = now + this.plan.readInterval;
    }
  }

  #receive(bytes: Buffer): void {
    let data = bytes;
    if (this.skipHeader !== undefined) data = bytes.subarray(this.skipHeader(bytes));
    if (this.partner === undefined) {
      const missing = HEADER_SIZE - this.#start.length;
      this.#start = Buffer.concat([this.#start, data.subarray(0, missing)]);
      if (this.#start.length === HEADER_SIZE) {
        this.partner = this.#findPartner();
      }
      this.received += Math.min(missing, data.length);
      data = data.subarray(missing);
    }
    if (data.length === 0 || this.partner === undefined) return;
    if (!isContent(this.partner.id, this.received, data))
      this.#onViolation(`${data.length} bytes at ${this.received} are not what ${this.partner.id} sent`);
    this.received += data.length;
    if (this.received > this.partner.sent)
      this.#onViolation(`received ${this.received} bytes of ${this.partner.sent} that were sent`);
  }

  #findPartner(): Party | undefined {
    const partner = this.#peers.get(senderOf(this.#start));
    const isOther = partner?.name === (this.name === "client" ? "target" : "client");
    if (!isOther || !isContent(partner.id, 0, this.#start)) {
      this.#onViolation("received a stream that nobody has sent");
      return undefined;
    }
    this.onPartner?.(partner);
    return partner;
  }

  #receiveEnd(): void {
    this.sawEnd = true;
    this.onEnd?.();
  }

  /** Called once it is known whose stream is received. */
  onPartner: ((partner: Party) => void) | undefined;

  /** Called when the end has arrived as an end. */
  onEnd: (() => void) | undefined;

  #write(): void {
    const endpoint = this.endpoint!;
    const { total, maxWrite, writeInterval } = this.plan;
    const { now } = this.#network.clock;
    while (this.sent < total && !this.hasEnded && this.error === 0) {
      if (now < this.#mayWriteAt) {
        this.#schedule(this.#mayWriteAt - now);
        return;
      }
      const bytes = contentAt(this.id, this.sent, Math.min(maxWrite, total - this.sent));
      const length = endpoint.write(bytes);
      if (length === EAGAIN) return;
      if (length < 0) {
        this.error = length;
        return;
      }
      this.sent += length;
      this.#mayWriteAt = now + writeInterval;
    }
  }

  #end(): void {
    const { ending, total } = this.plan;
    const endpoint = this.endpoint!;
    if (this.error !== 0) {
      this.#isDone = true;
      endpoint.close();
      return;
    }
    const mayEnd = ending === "orderly" || (ending === "last" && this.sawEnd);
    if (mayEnd && this.sent === total && !this.hasEnded) {
      this.hasEnded = true;
      endpoint.shutdown();
      this.#network.trace.record("ends", this.id);
    }
    if (!this.hasEnded || !this.sawEnd) return;
    this.#isDone = true;
    endpoint.close();
  }
}
