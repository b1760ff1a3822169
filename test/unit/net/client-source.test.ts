import { describe, expect, it } from "vitest";
import { sourceOf } from "../../../src/net/client-source.ts";

describe("the source of a client", () => {
  it.each([
    ["192.0.2.1", "192.0.2.1"],
    ["::ffff:192.0.2.1", "192.0.2.1"],
    ["::FFFF:192.0.2.1", "192.0.2.1"],
    ["2001:db8::1", "2001:db8:0:0::/64"],
    ["2001:db8:0:0:ffff::", "2001:db8:0:0::/64"],
    ["2001:DB8:1:2:3:4:5:6", "2001:db8:1:2::/64"],
    ["2001:0db8:0001:0002::7", "2001:db8:1:2::/64"],
    ["2001:db8::192.0.2.1", "2001:db8:0:0::/64"],
    ["1:2:3:4:5:6:192.0.2.1", "1:2:3:4::/64"],
    ["1:2:3::192.0.2.1", "1:2:3:0::/64"],
    ["::1", "0:0:0:0::/64"],
    ["::", "0:0:0:0::/64"],
    ["1::", "1:0:0:0::/64"],
    // All clients on the link share this prefix.
    ["fe80::1%eth0", "fe80::1%eth0"],
    [undefined, "unix"],
  ])("%s is %s", (address, source) => {
    expect(sourceOf(address)).toBe(source);
  });
});
