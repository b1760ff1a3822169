/** The portable engine in the programs, which use it if WebAssembly is disabled. */
import { randomBytes } from "node:crypto";
import { expect, it } from "vitest";
import {
  commandOf,
  freeAddress,
  keyFile,
  type Program,
  run,
  start,
  startSpiped,
  untilListening,
} from "../../support/programs.ts";
import { describeIfInstalled } from "../../support/requirements.ts";
import { startEcho } from "../../support/servers.ts";

const withoutWebAssembly = (program: Program) => {
  const [node, file] = commandOf("ours", program);
  return [node, "--jitless", file!];
};

describeIfInstalled("spiped", "spipe")("without WebAssembly", () => {
  it("spipe connects to Tarsnap's daemon", async () => {
    const key = keyFile();
    const echo = await startEcho();
    const wire = await freeAddress();
    await startSpiped("c", "-d", wire, echo.address, key);
    const data = randomBytes(200_000);
    const { status, stdout } = await run([...withoutWebAssembly("spipe"), "-t", wire.text, "-k", key], data);
    expect(status).toBe(0);
    expect(stdout.equals(data)).toBe(true);
  });

  it("spiped serves Tarsnap's client", async () => {
    const key = keyFile();
    const echo = await startEcho();
    const wire = await freeAddress();
    const args = ["-F", "-d", "-s", wire.text, "-t", echo.address.text, "-k", key];
    await untilListening(start([...withoutWebAssembly("spiped"), ...args]), wire);
    const data = randomBytes(200_000);
    const { status, stdout } = await run([...commandOf("c", "spipe"), "-t", wire.text, "-k", key], data);
    expect(status).toBe(0);
    expect(stdout.equals(data)).toBe(true);
  });
});
