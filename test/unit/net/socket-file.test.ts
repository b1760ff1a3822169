/** The files of UNIX sockets. */
import { once } from "node:events";
import { chmodSync, existsSync, mkdirSync, readFileSync, renameSync, statSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { BoundSocket } from "../../../src/net/bound-socket.ts";
import { bindSocketFile, changeSocketFile, removeSocketFile } from "../../../src/net/socket-file.ts";
import { cleanUp, temporaryDirectory } from "../../support/programs.ts";

/** Returns a function that listens on a path, and the servers for which it was called. */
function listener(path: string) {
  const servers: Server[] = [];
  const bind = async () => {
    const server = createServer();
    const listening = once(server, "listening");
    server.listen(path);
    await listening;
    servers.push(server);
    cleanUp(() => void server.close());
  };
  return { servers, bind };
}

const mode = (path: string) => statSync(path).mode & 0o777;

/** Leaves the file of a socket that no process uses. */
async function makeStale(path: string): Promise<void> {
  // Node removes the file by its first name when it closes the socket; a process that is killed leaves it.
  const first = `${path}.first`;
  const bound = await BoundSocket.bind({ kind: "unix", path: first });
  renameSync(first, path);
  bound.handle.close();
}

describe("the file of a UNIX socket", () => {
  it.each([0o600, 0o660, 0o777])("has mode %o from the start, whatever the umask is", async (wanted) => {
    const umask = process.umask(0o027);
    cleanUp(() => void process.umask(umask));
    const path = join(temporaryDirectory(), "socket");
    let atFirst = 0;
    await bindSocketFile(path, { mode: wanted }, () => {
      const server = createServer().listen(path);
      cleanUp(() => void server.close());
      atFirst = mode(path);
    });
    expect(atFirst).toBe(wanted);
    expect(process.umask(0o027)).toBe(0o027);
  });

  it("has the umask's mode by default", async () => {
    const umask = process.umask(0o027);
    cleanUp(() => void process.umask(umask));
    const path = join(temporaryDirectory(), "socket");
    await bindSocketFile(path, {}, listener(path).bind);
    expect(mode(path)).toBe(0o750);
  });

  it("is kept if a process listens, or has bound it and does not listen yet", async () => {
    const path = join(temporaryDirectory(), "socket");
    const bound = await BoundSocket.bind({ kind: "unix", path });
    const { ino } = statSync(path);
    const { servers, bind } = listener(path);
    await expect(bindSocketFile(path, {}, bind)).rejects.toMatchObject({ code: "EADDRINUSE" });
    const server = createServer();
    const listening = once(server, "listening");
    server.listen(bound.handle);
    await listening;
    cleanUp(() => void server.close());
    await expect(bindSocketFile(path, {}, bind)).rejects.toMatchObject({ code: "EADDRINUSE" });
    expect(statSync(path).ino).toBe(ino);
    expect(servers).toEqual([]);
  });

  it("is never replaced if it is not a socket", async () => {
    const path = join(temporaryDirectory(), "file");
    writeFileSync(path, "precious");
    await expect(bindSocketFile(path, {}, listener(path).bind)).rejects.toMatchObject({ code: "EADDRINUSE" });
    expect(readFileSync(path, "utf8")).toBe("precious");
  });

  it("can't be created in a missing directory", async () => {
    const path = join(temporaryDirectory(), "missing/socket");
    await expect(bindSocketFile(path, {}, listener(path).bind)).rejects.toMatchObject({ code: "ENOENT" });
  });

  it("is removed without an error if it exists or not", async () => {
    const path = join(temporaryDirectory(), "socket");
    await listener(path).bind();
    removeSocketFile(path);
    expect(existsSync(path)).toBe(false);
    expect(() => removeSocketFile(path)).not.toThrow();
  });

  it("changes its mode only in a directory that no other user can change", async () => {
    const directory = join(temporaryDirectory(), "shared");
    mkdirSync(directory);
    const path = join(directory, "socket");
    await listener(path).bind();
    changeSocketFile(path, { mode: 0o600 });
    expect(mode(path)).toBe(0o600);
    chmodSync(directory, 0o777);
    expect(() => changeSocketFile(path, { mode: 0o666 })).toThrow(
      `other users can replace ${path}: ${directory} is world-writable`,
    );
    expect(() => changeSocketFile(path, { owner: { uid: -1, gid: -1 } })).toThrow("other users can replace");
    expect(() => changeSocketFile(path, {})).not.toThrow();
    expect(mode(path)).toBe(0o600);
    chmodSync(directory, 0o700);
  });

  it("is replaced if no process uses it", async () => {
    const path = join(temporaryDirectory(), "socket");
    await makeStale(path);
    const { servers, bind } = listener(path);
    await bindSocketFile(path, { mode: 0o600 }, bind);
    expect(servers).toHaveLength(1);
    expect(mode(path)).toBe(0o600);
  });
});
