/** Who receives the events of a connection. */
import { expect, it } from "vitest";
import { closingFor } from "../../../src/tunnel/close-reason.ts";
import { type ConnectionEvent, ConnectionRecord } from "../../../src/tunnel/connection-event.ts";

const client = { number: 1, tunnel: undefined, mode: "decrypt", peer: "unix", source: "unix" } as const;

it("passes all events to one kind of listener, and only the end of a failed connection to the other", () => {
  const all: string[] = [];
  const failures: ConnectionEvent[] = [];
  const listeners = {
    connection: ({ type }: ConnectionEvent) => void all.push(type),
    failed: (event: ConnectionEvent) => void failures.push(event),
  };
  for (const reason of ["closed", "wrong-key"] as const) {
    const record = new ConnectionRecord(client, listeners);
    record.report("accepted");
    record.reportClosed(closingFor(reason), "check it");
  }
  expect(all).toEqual(["accepted", "closed", "accepted", "closed"]);
  expect(failures).toHaveLength(1);
  expect(failures[0]).toMatchObject({
    type: "closed",
    reason: "wrong-key",
    failed: true,
    advice: "check it",
  });
  expect(Object.isFrozen(failures[0])).toBe(true);
});

it("creates the event of a failure if nobody receives the others", () => {
  const failures: ConnectionEvent[] = [];
  const record = new ConnectionRecord(client, { failed: (event) => void failures.push(event) });
  record.report("accepted");
  record.reportClosed(closingFor("packet-forged", "7"));
  expect(failures).toMatchObject([{ text: "peer: bad MAC at packet 7", opened: false }]);
});
