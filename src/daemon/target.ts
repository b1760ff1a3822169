/** A target whose addresses are looked up periodically. */
import type { Address, ResolvedAddress } from "../net/address.ts";
import { resolveAddress } from "../net/resolve.ts";
import { startTimeout } from "../net/timers.ts";

/** Maximum interval between lookups of a name that has never resolved, in ms. */
const FIRST_RETRY_MS = 1000;

/** Holds the addresses from the last successful lookup. */
export class Target {
  readonly address: Address;
  readonly #onFailure: (error: Error, first: boolean) => void;
  #failing: boolean;
  #addresses: readonly ResolvedAddress[];
  #cancel: () => void = () => {};
  #stopped = false;

  /**
   * @param addresses - the known addresses; empty if the name has not resolved yet, which was logged.
   * @param onFailure - called for each lookup that fails; `first` is true if the one before succeeded. The last known
   * addresses stay in use.
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

  /** The addresses to connect to, in order of preference. */
  get addresses(): readonly ResolvedAddress[] {
    return this.#addresses;
  }

  /** Looks up the target now; the result applies to later connections. */
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
   * Looks up the target periodically until `stop()` is called.
   *
   * @param interval - time from the end of one lookup to the start of the next, in ms; less until one has succeeded.
   */
  startRefreshing(interval: number): void {
    if (this.#stopped) return;
    const delay = this.#addresses.length === 0 ? Math.min(FIRST_RETRY_MS, interval) : interval;
    this.#cancel = startTimeout(delay, () => {
      void this.refresh().then(() => this.startRefreshing(interval));
    });
  }

  /** Stops the periodic lookups. */
  stop(): void {
    this.#stopped = true;
    this.#cancel();
  }
}
