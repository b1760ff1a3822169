/** Lists of addresses and ranges. */
import { expect, it } from "vitest";
import { AddressList } from "../../../src/net/cidr-list.ts";

it("an address list matches addresses in all their forms", () => {
  const list = new AddressList(["10.0.0.0/8", "2001:db8::/32", "::1", "unix"]);
  for (const address of ["10.1.2.3", "::ffff:10.1.2.3", "2001:db8:1::2", "::1", undefined])
    expect(list.includes(address)).toBe(true);
  for (const address of ["11.0.0.1", "::ffff:11.0.0.1", "2001:db9::1", "::2"])
    expect(list.includes(address)).toBe(false);
  expect(new AddressList(["0.0.0.0/0"]).includes(undefined)).toBe(false);
});
