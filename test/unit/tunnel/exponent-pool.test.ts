import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { Exponent } from "../../../src/protocol/diffie-hellman.ts";
import { ClientHandshake, ServerHandshake } from "../../../src/protocol/handshake.ts";
import { Secret } from "../../../src/protocol/secret.ts";
import { ExponentPool, MAX_EXPONENTS } from "../../../src/tunnel/exponent-pool.ts";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => {
  vi.useRealTimers();
  vi.restoreAllMocks();
});

/** Longer than it takes to fill a pool. */
const LONG_MS = 2000;

it("fills while nothing takes from it, and stops its timer when it is full", () => {
  const pool = new ExponentPool();
  vi.advanceTimersByTime(LONG_MS);
  expect(pool.size).toBe(0);
  pool.use();
  vi.advanceTimersByTime(LONG_MS);
  expect(pool.size).toBe(MAX_EXPONENTS);
  expect(vi.getTimerCount()).toBe(0);
});

it("returns each exponent once, and new ones when it is empty", () => {
  const pool = new ExponentPool();
  pool.use();
  vi.advanceTimersByTime(LONG_MS);
  const values = Array.from({ length: MAX_EXPONENTS + 3 }, () =>
    Buffer.from(pool.take().publicValue()).toString("hex"),
  );
  expect(new Set(values).size).toBe(values.length);
  expect(pool.size).toBe(0);
});

it("does not fill during a series of handshakes", () => {
  const pool = new ExponentPool();
  pool.use();
  for (let i = 0; i < 50; i += 1) {
    pool.take();
    vi.advanceTimersByTime(10);
  }
  expect(pool.size).toBe(0);
  vi.advanceTimersByTime(LONG_MS);
  expect(pool.size).toBe(MAX_EXPONENTS);
});

it("does not fill while timers are late", () => {
  const pool = new ExponentPool();
  let late = 5;
  const now = performance.now.bind(performance);
  const clock = vi.spyOn(performance, "now").mockImplementation(() => now() + (late += 5));
  pool.use();
  vi.advanceTimersByTime(LONG_MS);
  expect(pool.size).toBe(0);
  clock.mockRestore();
  vi.advanceTimersByTime(LONG_MS);
  expect(pool.size).toBeGreaterThan(0);
});

it("discards its exponents when the last user has gone, and stays empty", () => {
  const destroy = vi.spyOn(Exponent.prototype, "destroy");
  const pool = new ExponentPool();
  const leave = [pool.use(), pool.use()];
  vi.advanceTimersByTime(LONG_MS);
  leave[0]!();
  leave[0]!();
  expect(pool.size).toBe(MAX_EXPONENTS);
  leave[1]!();
  expect(pool.size).toBe(0);
  expect(destroy).toHaveBeenCalledTimes(MAX_EXPONENTS);
  pool.take();
  vi.advanceTimersByTime(LONG_MS);
  expect(pool.size).toBe(0);
});

it("serves the handshakes of both sides, which discard what they took", () => {
  const pool = new ExponentPool();
  pool.use();
  vi.advanceTimersByTime(LONG_MS);
  const destroy = vi.spyOn(Exponent.prototype, "destroy");
  const secret = Secret.fromKeyFile(Buffer.from("key"));
  const client = new ClientHandshake(secret, { exponents: pool });
  const server = new ServerHandshake([secret], { exponents: pool });
  server.receive(client.nonce);
  server.receive(client.receive(server.nonce).send!);
  const { send, session } = server.respond();
  const other = client.receive(send).session!;
  expect(other.seal).toEqual(session.open);
  expect(pool.size).toBe(MAX_EXPONENTS - 2);
  expect(new Set(destroy.mock.contexts).size).toBe(2);
});

it("is not used by a weak handshake", () => {
  const pool = new ExponentPool();
  pool.use();
  vi.advanceTimersByTime(LONG_MS);
  new ClientHandshake(Secret.fromKeyFile(Buffer.from("key")), { weak: true, exponents: pool }).receive(
    Buffer.alloc(32),
  );
  expect(pool.size).toBe(MAX_EXPONENTS);
});
