/** A target whose addresses are looked up again from time to time. */
import type { Address, ResolvedAddress } from "./address.ts";
import { deadline } from "./deadline.ts";
import { resolveAddress } from "./resolve.ts";

/** Holds what the last successful look-up gave. */
export class Target {
  readonly address: Address;
  readonly #onFailure: (error: Error, first: boolean) => void;
  #failing = false;
  #addresses: readonly ResolvedAddress[];
  #cancel: () => void = () => {};
  #stopped = false;

  /**
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
   * @param interval ms from the end of one look-up to the start of the next.
   */
  refreshEvery(interval: number): void {
    if (this.#stopped) return;
    this.#cancel = deadline(interval, () => {
      void this.refresh().then(() => this.refreshEvery(interval));
    });
  }

  /** Looks up no more. */
  stop(): void {
    this.#stopped = true;
    this.#cancel();
  }
}
