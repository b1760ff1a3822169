/** Reading what comes before the data. */
import { describe, expect, it } from "vitest";
import { readUntilParsed } from "../../../src/net/read-until-parsed.ts";
import { socketPair } from "../../support/pairs.ts";
import { until } from "../../support/programs.ts";
import { readAll } from "../../support/servers.ts";

/** Returns a parser of a line. */
function lineParser() {
  let line = "";
  return (bytes: Buffer) => {
    const end = bytes.indexOf("\n");
    line += bytes.toString("latin1", 0, end < 0 ? bytes.length : end);
    if (line.includes("!")) throw new Error(`invalid line: ${line}`);
    return end < 0 ? { consumed: bytes.length } : { consumed: end + 1, result: line };
  };
}

const closedEarly = (cause: Error | null) => new Error("closed early", { cause });

describe.each(["direct", "ordinary"] as const)("a line before the data, from a %s socket", (kind) => {
  it.each([
    ["in one piece with the data", ["line\nda", "ta"]],
    ["in many pieces", ["l", "i", "n", "e", "\n", "data"]],
  ])("is read %s, and the data stays unread", async (_how, pieces) => {
    const { socket, peer } = await socketPair("IPv4", kind);
    const line = readUntilParsed(socket, lineParser(), closedEarly);
    for (const [i, piece] of pieces.entries()) {
      peer.socket.write(piece);
      if (i < pieces.length - 1) await new Promise(setImmediate);
    }
    expect(await line).toBe("line");
    expect(socket.isPaused()).toBe(true);
    peer.socket.end();
    expect(String(await readAll(socket))).toBe("data");
  });

  it("that is invalid rejects with the parser's error, and reading stops", async () => {
    const { socket, peer } = await socketPair("IPv4", kind);
    const line = readUntilParsed(socket, lineParser(), closedEarly);
    peer.socket.write("what!");
    await expect(line).rejects.toThrow("invalid line: what!");
    expect(socket.isPaused()).toBe(true);
  });

  it.each(["end", "reset"])(
    "that does not come before the peer's %s rejects with the caller's error",
    async (how) => {
      const { socket, peer } = await socketPair("IPv4", kind);
      const line = readUntilParsed(socket, lineParser(), closedEarly);
      peer.socket.write("lin");
      await until(() => socket.bytesRead === 3);
      if (how === "end") peer.socket.end();
      else peer.socket.resetAndDestroy();
      await expect(line).rejects.toMatchObject({
        message: "closed early",
        cause: how === "end" ? null : { code: "ECONNRESET" },
      });
    },
  );

  it("rejects with the error that the socket is or was destroyed with", async () => {
    const { socket } = await socketPair("IPv4", kind);
    const line = readUntilParsed(socket, lineParser(), closedEarly);
    const reason = new Error("evicted");
    socket.destroy(reason);
    await expect(line).rejects.toBe(reason);
    await expect(readUntilParsed(socket, lineParser(), closedEarly)).rejects.toBe(reason);
  });
});
