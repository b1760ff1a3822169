/** The channels of node:diagnostics_channel: their documentation, their messages, and those of the library. */
import { randomBytes } from "node:crypto";
import { subscribe, unsubscribe } from "node:diagnostics_channel";
import { once } from "node:events";
import { connect as connectNet } from "node:net";
import { describe, expect, it } from "vitest";
import { type ConnectionEvent, connect, createServer, fingerprint, Secret } from "../../../src/index.ts";
import { closingFor } from "../../../src/tunnel/close-reason.ts";
import { ConnectionRecord } from "../../../src/tunnel/connection-event.ts";
import { CHANNELS } from "../../../src/tunnel/diagnostics-channels.ts";
import { cleanUp, until } from "../../support/programs.ts";
import { tableRows } from "../../support/tables.ts";

const channels = Object.values(CHANNELS);
const client = { number: 1, tunnel: "mail", mode: "decrypt", peer: "unix", source: "unix" } as const;

/** Collects the messages of all channels until the end of the test. */
function collect(): ConnectionEvent[] {
  const events: ConnectionEvent[] = [];
  for (const { name } of channels) {
    const listener = (message: unknown) => void events.push(message as ConnectionEvent);
    subscribe(name, listener);
    cleanUp(() => void unsubscribe(name, listener));
  }
  return events;
}

const types = (events: readonly ConnectionEvent[], mode?: string) =>
  events.filter((event) => mode === undefined || event.mode === mode).map(({ type }) => type);

/** Starts a server of the library on a free port. */
async function listen(options: Parameters<typeof createServer>[0]) {
  const server = createServer(options, (socket) => {
    socket.on("error", () => {});
    socket.pipe(socket);
  });
  await server.listen({ port: 0, host: "127.0.0.1" });
  cleanUp(() => server.close());
  return (server.address() as { port: number }).port;
}

describe("the diagnostics channels", () => {
  const rows = tableRows("docs/reference/diagnostics-channels.md");

  it("are those that the documentation has", () => {
    const documented = rows.map(([name]) => name!).filter((name) => name.startsWith("spiped:"));
    expect(documented).toEqual(channels.map(({ name }) => name));
    for (const [type, { name }] of Object.entries(CHANNELS)) expect(name).toBe(`spiped:connection:${type}`);
  });

  it("get frozen messages with the documented fields", () => {
    const events = collect();
    const record = new ConnectionRecord(client);
    for (const type of Object.keys(CHANNELS)) {
      if (type === "closed") record.reportClosed(closingFor("packet-forged", "7"), "check it");
      else record.report(type as Exclude<ConnectionEvent["type"], "closed">);
    }
    expect(types(events)).toEqual(Object.keys(CHANNELS));
    const fields = rows.map(([name]) => name!).filter((name) => !name.startsWith("spiped:"));
    expect(new Set(events.flatMap((event) => Object.keys(event)))).toEqual(new Set(fields));
    for (const event of events) {
      expect(Object.isFrozen(event)).toBe(true);
      for (const value of Object.values(event)) expect(value instanceof Object).toBe(false);
    }
    expect(new Set(events.map(({ id }) => id)).size).toBe(1);
    expect(events.at(-1)).toMatchObject({
      reason: "packet-forged",
      text: "peer: bad MAC at packet 7",
      label: "peer: bad MAC at packet",
      failed: true,
      opened: true,
      advice: "check it",
    });
  });

  it("give each connection its own ID", () => {
    const events = collect();
    for (let i = 0; i < 2; i += 1) new ConnectionRecord(client).report("accepted");
    expect(events[0]!.id).not.toBe(events[1]!.id);
  });
});

describe("the library", () => {
  const key = Secret.fromKeyFile(randomBytes(32));

  it("publishes the steps of both ends of a connection", async () => {
    const events = collect();
    const port = await listen({ keys: [{ name: "alice", secret: key }] });
    const socket = await connect({ host: "127.0.0.1", port, key });
    socket.end("hello");
    socket.resume();
    await once(socket, "close");
    await until(() => types(events).filter((type) => type === "closed").length === 2);

    expect(types(events, "decrypt")).toEqual(["accepted", "authenticated", "opened", "closed"]);
    expect(types(events, "encrypt")).toEqual([
      "connecting",
      "connected",
      "authenticated",
      "opened",
      "closed",
    ]);
    const counts = { bytesEncrypted: 5, bytesDecrypted: 5 };
    const closed = { type: "closed", reason: "closed", failed: false, opened: true, ...counts };
    expect(events).toContainEqual(
      expect.objectContaining({
        ...closed,
        mode: "decrypt",
        peer: expect.stringMatching(/^127\.0\.0\.1:\d+$/),
        source: "127.0.0.1",
        keyName: "alice",
        keyFingerprint: fingerprint(key),
      }),
    );
    expect(events).toContainEqual(
      expect.objectContaining({ ...closed, mode: "encrypt", target: `127.0.0.1:${port}`, peer: undefined }),
    );
  });

  it("publishes why a connection was not opened", async () => {
    const events = collect();
    const reasons = (mode: string) =>
      events.flatMap((event) => (event.type === "closed" && event.mode === mode ? [event.reason] : []));
    const port = await listen({ key });
    const other = Secret.fromKeyFile(randomBytes(32));
    await expect(connect({ host: "127.0.0.1", port, key: other })).rejects.toThrow();
    await until(() => reasons("decrypt").length === 1);
    await expect(connect({ path: "/nonexistent/socket", key })).rejects.toThrow();
    await expect(connect({ host: "127.0.0.1", port, key, signal: AbortSignal.abort() })).rejects.toThrow();
    expect(reasons("decrypt")).toEqual(["wrong-key"]);
    expect(reasons("encrypt")).toEqual(["handshake-peer-closed", "target-socket-missing", "aborted"]);
  });

  it("publishes why an open connection broke", async () => {
    const events = collect();
    const port = await listen({ key });
    const socket = await connect({ host: "127.0.0.1", port, key });
    socket.destroy(new Error("the program's own"));
    socket.on("error", () => {});
    await until(() => types(events).filter((type) => type === "closed").length === 2);
    expect(events).toContainEqual(
      expect.objectContaining({ mode: "encrypt", reason: "aborted", failed: false, opened: true }),
    );
    expect(events).toContainEqual(
      expect.objectContaining({ mode: "decrypt", reason: "peer-reset", failed: true, opened: true }),
    );
  });

  it("publishes that a connection was closed without a handshake", async () => {
    const events = collect();
    const port = await listen({ key });
    connectNet(port, "127.0.0.1").end();
    await until(() => types(events).includes("closed"));
    expect(events.at(-1)).toMatchObject({
      reason: "handshake-peer-closed",
      opened: false,
      advice: undefined,
    });
  });
});
