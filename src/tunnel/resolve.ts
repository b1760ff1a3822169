/** A placeholder until the resolver lands. */
import { lookup } from "node:dns/promises";

export function lookUpHost(host: string): Promise<{ address: string; family: 4 | 6 }[]> {
  return lookup(host, { all: true, verbatim: true }) as Promise<{ address: string; family: 4 | 6 }[]>;
}
