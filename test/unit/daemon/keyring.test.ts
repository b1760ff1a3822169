/** The keys that a tunnel accepts. */
import { describe, expect, it } from "vitest";
import { Keyring, reuseSecrets } from "../../../src/daemon/keyring.ts";
import { Secret } from "../../../src/protocol/secret.ts";

describe("a keyring", () => {
  const key = (name: string) => ({ name, secret: Secret.fromKeyFile(Buffer.from(name)) });

  it("tries the most recently used keys first", () => {
    const [a, b, c] = [key("a"), key("b"), key("c")];
    const ring = new Keyring([a, b, c]);
    ring.markUsed(c.secret);
    ring.markUsed(b.secret);
    expect([...ring.candidates()]).toEqual([b.secret, c.secret, a.secret]);
    expect(ring.markUsed(key("a").secret)).toBeUndefined();
  });

  it("keeps the Secret of an unchanged key over a reload, and returns the removed ones", () => {
    const before = [key("a"), key("b")];
    const after = [key("b"), key("c")];
    const { keys, removed: retired } = reuseSecrets(after, before);
    expect(keys.map(({ name }) => name)).toEqual(["b", "c"]);
    expect(keys[0]!.secret).toBe(before[1]!.secret);
    expect(retired).toEqual([before[0]!.secret]);
  });
});
