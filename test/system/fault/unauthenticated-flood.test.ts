/**
 * A flood of unauthenticated clients that are idle, write slowly, reset or send garbage, while Tarsnap's client makes
 * connections.
 *
 * FLOOD_SECONDS sets its duration; the times are printed, not checked.
 */
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { expect, it } from "vitest";
import { withoutFailureLines } from "../../support/log-lines.ts";
import {
  cleanUp,
  connectTo,
  freeAddress,
  keyFile,
  start,
  startSpiped,
  type TestAddress,
  until,
} from "../../support/programs.ts";
import { describeIfInstalled } from "../../support/requirements.ts";
import { startEcho } from "../../support/servers.ts";
import { descriptors } from "../../support/sockets.ts";

const SECONDS = Number(process.env.FLOOD_SECONDS ?? 4);

const resident = (pid: number) =>
  Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "latin1"))![1]) / 1024;

/** Repeatedly connects, echoes a byte and closes; returns the 99th percentile in ms. */
async function legitimate(plain: TestAddress, seconds: number): Promise<{ p99: number; count: number }> {
  const times: number[] = [];
  for (const end = performance.now() + seconds * 1000; performance.now() < end; ) {
    const start = performance.now();
    const socket = await connectTo(plain);
    await new Promise<void>((resolve, reject) => {
      socket.once("data", () => resolve());
      socket.once("close", () => reject(new Error("closed without an answer")));
      socket.write("x");
    });
    times.push(performance.now() - start);
    socket.destroy();
    await new Promise((done) => setTimeout(done, 5));
  }
  times.sort((a, b) => a - b);
  return { p99: times[Math.floor(times.length * 0.99)]!, count: times.length };
}

describeIfInstalled("spiped")("a flood of unauthenticated clients", () => {
  it("does not block an authenticated client, reaches no target, and leaves no descriptor open", {
    timeout: (SECONDS + 60) * 1000,
  }, async () => {
    const key = keyFile();
    const echo = await startEcho();
    const wire = await freeAddress();
    const plain = await freeAddress();
    const daemon = await startSpiped("ours", "-d", wire, echo.address, key, "-n", "100", "-o", "2");
    await startSpiped("c", "-e", plain, wire, key);
    await legitimate(plain, 1);
    const unloaded = await legitimate(plain, SECONDS / 4);
    const before = { memory: resident(daemon.pid), descriptors: descriptors(daemon.pid) };
    const served = echo.sockets.length;

    const flood = start([
      process.execPath,
      resolve("test/support/flood.mjs"),
      String((wire.connect as { port: number }).port),
    ]);
    let peak = 0;
    const watch = setInterval(() => {
      peak = Math.max(peak, resident(daemon.pid));
    }, 100);
    cleanUp(() => clearInterval(watch));
    await until(() => descriptors(daemon.pid) > before.descriptors + 500);
    const loaded = await legitimate(plain, SECONDS);
    flood.child.stdin!.end();
    await flood.ended;
    const clients = Number(flood.stdout());

    expect(loaded.count).toBeGreaterThan(10);
    expect(peak - before.memory).toBeLessThan(64);
    // Only the authenticated client's connections reached the target.
    expect(echo.sockets.length - served).toBe(loaded.count);
    await until(() => descriptors(daemon.pid) <= before.descriptors);
    expect(withoutFailureLines(daemon.stderr())).toBe("");
    console.log(
      `${clients} unauthenticated connections in ${SECONDS} s; the client's connect and echo, 99th percentile: ` +
        `${unloaded.p99.toFixed(1)} ms before, ${loaded.p99.toFixed(1)} ms during; ` +
        `memory ${before.memory.toFixed(0)} MiB before, ${peak.toFixed(0)} MiB at most`,
    );
  });
});
