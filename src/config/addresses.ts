/** Parses and resolves configured addresses. */
import { type Address, AddressError, EmptyAddressError, type ResolvedAddress } from "../net/address.ts";
import { ResolveError, resolveAddress } from "../net/resolve.ts";
import { addressHint } from "./address-hints.ts";
import { ConfigError, UsageError } from "./config-error.ts";

/**
 * Parses and resolves an address.
 *
 * @param option - the option that it belongs to, as typed.
 * @param place - what the address is for, if it is not from the command line, such as "the target of key bob".
 * @throws ConfigError, UsageError
 */
export async function resolveOption(
  text: string,
  option: string,
  parse: (text: string) => Address,
  place?: string,
): Promise<{ address: Address; addresses: ResolvedAddress[] }> {
  try {
    const address = parse(text);
    const addresses = await resolveAddress(address);
    if (addresses.length === 0) throw new ConfigError([`No addresses found for ${text}`]);
    return { address, addresses };
  } catch (error) {
    const hint = addressHint(text, option);
    if (error instanceof EmptyAddressError)
      throw new UsageError(`${place ?? option} requires an address${hint ? `: ${hint}` : ""}`, error.message);
    if (!(error instanceof AddressError || error instanceof ResolveError)) throw error;
    const where = place === undefined ? "" : ` for ${place}`;
    throw new ConfigError([
      error.message,
      `Error resolving socket address${where}: ${text}`,
      ...(hint ? [hint] : []),
    ]);
  }
}

/** Returns the first of several addresses, for a socket that can be bound to one only; warns if there are several. */
export function firstAddress(
  addresses: readonly ResolvedAddress[],
  text: string,
  warn: (message: string) => void,
): ResolvedAddress {
  if (addresses.length > 1) warn(`Using the first of multiple addresses found for ${text}`);
  return addresses[0]!;
}
