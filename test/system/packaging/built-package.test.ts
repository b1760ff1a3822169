/** The library as it is built. */
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { run } from "../../support/programs.ts";

describe("the built package", () => {
  it.each([
    [
      "an ES module",
      "--input-type=module",
      'import * as spiped from "spiped"; console.log(Object.keys(spiped).sort().join())',
    ],
    ["CommonJS", "--input-type=commonjs", 'console.log(Object.keys(require("spiped")).sort().join())'],
  ])("loads as %s, without a warning", async (_what, type, code) => {
    const { stdout, stderr, status } = await run([process.execPath, type, "-e", code]);
    expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
    expect(stdout.toString().trim().split(",")).toEqual(
      expect.arrayContaining(["HandshakeError", "PacketError", "connect", "createServer", "loadKey"]),
    );
  });

  it("rejects with an error that has a name and a code", async () => {
    const code = `
      import { connect, Secret } from "spiped";
      connect({ host: "127.0.0.1", port: 1, key: Secret.fromKeyFile(Buffer.from("x")) }).catch((e) => console.log(e.name, e.code));`;
    const { stdout } = await run([process.execPath, "--input-type=module", "-e", code]);
    expect(stdout.toString().trim()).toBe("ConnectError ERR_SPIPED_CONNECT");
  });

  it("lists only existing files in package.json", () => {
    const manifest = JSON.parse(readFileSync("package.json", "utf8"));
    for (const file of [
      ...manifest.man,
      ...Object.values<string>(manifest.bin),
      manifest.types,
      ...Object.values<string>(manifest.exports["."]),
    ])
      expect(readFileSync(file).length).toBeGreaterThan(0);
  });
});
