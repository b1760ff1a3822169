/** A target whose addresses are looked up again from time to time. */
import type { Address, ResolvedAddress } from "../net/address.ts";
import { resolveAddress } from "../net/resolve.ts";
import { deadline } from "../net/timers.ts";

/** How long to wait before a name is looked up again that never could be, ms. */
const FIRST_RETRY_MS = 1000;

/** Holds what the last successful look-up gave. */
export class Target {
  readonly address: Address;
  readonly #onFailure: (error: Error, first: boolean) => void;
  #failing: boolean;
  #addresses: readonly ResolvedAddress[];
  #cancel: () => void = () => {};
  #stopped = false;

  /**
   * @param addresses what is known; none if the name could not be looked up yet, which was logged.
   * @param onFailure told of each look-up that fails, and whether it is the first since one succeeded; the last answer
   * stays in force.
   */
  constructor(
    address: Address,
    addresses: readonly ResolvedAddress[],
    onFailure: (error: Error, first: boolean) => void,
  ) {
    this.address = address;
    this.#addresses = addresses;
    this.#failing = addresses.length === 0;
    this.#onFailure = onFailure;
  }

  /** The addresses to connect to, in order. */
  get addresses(): readonly ResolvedAddress[] {
    return this.#addresses;
  }

  /** Looks the target up now, for connections to come. */
  async refresh(): Promise<void> {
    try {
      this.#addresses = await resolveAddress(this.address);
      this.#failing = false;
    } catch (error) {
      this.#onFailure(error as Error, !this.#failing);
      this.#failing = true;
    }
  }

  /**
   * Looks the target up again and again.
   *
   * @param interval ms from the end of one look-up to the start of the next, once one has succeeded.
   */
  refreshEvery(interval: number): void {
    if (this.#stopped) return;
    const delay = this.#addresses.length === 0 ? Math.min(FIRST_RETRY_MS, interval) : interval;
    this.#cancel = deadline(delay, () => {
      void this.refresh().then(() => this.refreshEvery(interval));
    });
  }

  /** Looks up no more. */
  stop(): void {
    this.#stopped = true;
    this.#cancel();
  }
}
