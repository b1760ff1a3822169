/** HTTP over connections of the library. */
import { once } from "node:events";
import { createServer as createHttpServer, get } from "node:http";
import { describe, expect, it } from "vitest";
import { createServer, httpAgent, Secret } from "../../../src/index.ts";
import { listen } from "../../support/library.ts";
import { cleanUp, freePort } from "../../support/programs.ts";
import { readAll } from "../../support/servers.ts";

describe("httpAgent()", () => {
  it("sends all requests over one connection with keepAlive", async () => {
    const key = Secret.fromKeyFile(Buffer.from("a key for tests"));
    const web = createHttpServer((request, response) => response.end(`you want ${request.url}`));
    const server = createServer({ key }, (socket) => web.emit("connection", socket));
    let connections = 0;
    server.on("connection", () => {
      connections += 1;
    });
    const agent = httpAgent(
      { host: "127.0.0.1", port: await listen(server), key },
      { keepAlive: true, maxSockets: 1 },
    );
    cleanUp(() => agent.destroy());
    for (const path of ["/one", "/two", "/three"]) {
      const [response] = await once(get({ agent, host: "behind.example.org", path }), "response");
      expect(String(await readAll(response))).toBe(`you want ${path}`);
    }
    expect(connections).toBe(1);
  });

  it("reports a failed connection as the request's error", async () => {
    const key = Secret.fromKeyFile(Buffer.from("a key for tests"));
    const agent = httpAgent({ host: "127.0.0.1", port: await freePort(), key });
    const [error] = await once(get({ agent, host: "behind.example.org" }), "error");
    expect(error).toMatchObject({ code: "ERR_SPIPED_CONNECT" });
  });
});
