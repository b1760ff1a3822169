/** Checks that what a program receives is an exact prefix of the stream of one other program. */
import { HEADER_SIZE, isContent, senderOf } from "./content.ts";
import type { Party } from "./peer.ts";

export class Receipt {
  received = 0;
  /** The program whose stream is received, once that is known. */
  partner: Party | undefined;
  readonly #role: string;
  readonly #parties: ReadonlyMap<number, Party>;
  readonly #onPartner: (partner: Party) => void;
  readonly #onViolation: (message: string) => void;
  #start: Buffer = Buffer.alloc(0);

  /**
   * @param role - `client` or `target`; the other program has the other one.
   * @param onPartner - called once it is known whose stream is received.
   */
  constructor(
    role: string,
    parties: ReadonlyMap<number, Party>,
    onPartner: (partner: Party) => void,
    onViolation: (message: string) => void,
  ) {
    this.#role = role;
    this.#parties = parties;
    this.#onPartner = onPartner;
    this.#onViolation = onViolation;
  }

  add(bytes: Buffer): void {
    let data = bytes;
    if (this.partner === undefined) {
      const missing = HEADER_SIZE - this.#start.length;
      this.#start = Buffer.concat([this.#start, data.subarray(0, missing)]);
      this.received += Math.min(missing, data.length);
      data = data.subarray(missing);
      if (this.#start.length === HEADER_SIZE) this.#findPartner();
    }
    const { partner } = this;
    if (data.length === 0 || partner === undefined) return;
    if (!isContent(partner.id, this.received, data))
      this.#onViolation(`${data.length} bytes at ${this.received} are not what ${partner.id} sent`);
    this.received += data.length;
    if (this.received > partner.sent)
      this.#onViolation(`received ${this.received} bytes of ${partner.sent} that were sent`);
  }

  #findPartner(): void {
    const partner = this.#parties.get(senderOf(this.#start));
    const isOther = partner !== undefined && partner.name !== this.#role;
    if (!isOther || !isContent(partner.id, 0, this.#start)) {
      this.#onViolation("received a stream that nobody has sent");
      return;
    }
    this.partner = partner;
    this.#onPartner(partner);
  }
}
