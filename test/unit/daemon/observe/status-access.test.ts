/** Access to the status address. */
import { expect, it } from "vitest";
import { BearerToken } from "../../../../src/daemon/observe/status-access.ts";

it("a bearer token is kept as a hash only", () => {
  expect(JSON.stringify(new BearerToken(Buffer.from("0123456789abcdef0123456789abcdef")))).toBe("{}");
});
