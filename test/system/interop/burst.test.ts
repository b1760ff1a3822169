/** Many connections at once from one client: an encrypting daemon must get all of them through. */
import { connect } from "node:net";
import { describe, expect, it } from "vitest";
import {
  freeAddress,
  type Implementation,
  keyFile,
  startSpiped,
  type TestAddress,
} from "../../support/programs.ts";
import { itIfInstalled } from "../../support/requirements.ts";
import { startEcho } from "../../support/servers.ts";

/** Opens connections at once, each of which echoes one byte. Returns the number of those served. */
async function burst({ connect: options }: TestAddress, count: number): Promise<number> {
  const served = await Promise.all(
    Array.from(
      { length: count },
      () =>
        new Promise<boolean>((resolve) => {
          const socket = connect(options);
          socket.on("error", () => {});
          socket.once("close", () => resolve(false));
          socket.once("data", () => {
            resolve(true);
            socket.destroy();
          });
          socket.write("x");
        }),
    ),
  );
  return served.filter(Boolean).length;
}

async function serveBurst(maker: Implementation, count: number): Promise<void> {
  const echo = await startEcho();
  const key = keyFile();
  const wire = await freeAddress();
  const source = await freeAddress();
  await startSpiped(maker, "-d", wire, echo.address, key, "-n", "0");
  const client = await startSpiped("ours", "-e", source, wire, key, "-n", "0");
  expect(await burst(source, count)).toBe(count);
  expect(client.stderr()).toBe("");
}

describe("connections at once", () => {
  it("are all served by a pair of daemons", { timeout: 120_000 }, () => serveBurst("ours", 2000));

  // It has a listen backlog of 10.
  itIfInstalled("spiped")("are all served behind Tarsnap's spiped -d", { timeout: 120_000 }, () =>
    serveBurst("c", 500),
  );
});
