/** Features of Node that some versions or runtimes lack: results are the same without them. */
import { randomBytes } from "node:crypto";
import { MessagePort } from "node:worker_threads";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { Engine } from "../../../src/protocol/engine/engine.ts";
import { createNativeEngine } from "../../../src/protocol/engine/native.ts";
import { portableEngine } from "../../../src/protocol/engine/portable.ts";
import { sealedSize } from "../../../src/protocol/packet.ts";
import { Sealer } from "../../../src/protocol/sealer.ts";
import { hex, modes, vectors } from "../../vectors/vectors.ts";

describe("the native engine frees keystreams", () => {
  const prototype = ArrayBuffer.prototype as { transfer?(this: ArrayBuffer, length: number): ArrayBuffer };
  const original = Object.getOwnPropertyDescriptor(prototype, "transfer");
  const data = randomBytes(64 * 1024);
  const keys = { encrypt: randomBytes(32), mac: randomBytes(32) };

  const sealWith = (engine: Engine) => {
    const out = Buffer.alloc(sealedSize(data.length));
    new Sealer(engine, keys).seal(data, out);
    return out;
  };

  afterEach(() => {
    vi.restoreAllMocks();
    delete prototype.transfer;
    if (original !== undefined) Object.defineProperty(prototype, "transfer", original);
  });

  it("with ArrayBuffer.prototype.transfer", () => {
    const post = vi.spyOn(MessagePort.prototype, "postMessage");
    const freed: number[] = [];
    prototype.transfer = function (length) {
      freed.push(this.byteLength);
      return new ArrayBuffer(length);
    };
    const engine = createNativeEngine();
    sealWith(engine);
    freed.length = 0;
    expect(sealWith(engine)).toEqual(sealWith(portableEngine));
    expect(freed).toHaveLength(1);
    expect(freed[0]).toBeGreaterThanOrEqual(64 * 1028);
    expect(post).not.toHaveBeenCalled();
  });

  it("with messages to a closed port, on Node 20", () => {
    delete prototype.transfer;
    const post = vi.spyOn(MessagePort.prototype, "postMessage");
    const engine = createNativeEngine();
    sealWith(engine);
    post.mockClear();
    expect(sealWith(engine)).toEqual(sealWith(portableEngine));
    expect(post).toHaveBeenCalledOnce();
    const [[, transferred]] = post.mock.calls as unknown as [[undefined, [ArrayBuffer]]];
    expect(transferred[0].byteLength).toBe(0);
  });
});

describe("without crypto.hash", () => {
  beforeEach(() => {
    vi.resetModules();
    vi.doMock("node:crypto", async (original) => ({ ...(await original<object>()), hash: undefined }));
  });
  afterEach(() => {
    vi.doUnmock("node:crypto");
    vi.resetModules();
  });

  it("public values get the same MACs", async () => {
    const { authenticateValue } = await import("../../../src/protocol/key-schedule.ts");
    const { Secret } = await import("../../../src/protocol/secret.ts");
    const secret = Secret.fromKeyFile(hex(vectors.key_file));
    const nonces = { client: hex(vectors.nonce_client), server: hex(vectors.nonce_server) };
    for (const [, mode] of modes) {
      for (const side of ["client", "server"] as const) {
        const { y, mac } = mode[side];
        expect(Buffer.from(authenticateValue(secret, nonces, side, hex(y))).toString("hex")).toBe(mac);
      }
    }
  });

  it("the portable engine is selected", async () => {
    const { loadEngine } = await import("../../../src/protocol/engine/select.ts");
    expect((await loadEngine()).name).toBe("portable");
  });
});

it("the portable engine is selected without WebAssembly", async () => {
  vi.resetModules();
  vi.stubGlobal("WebAssembly", undefined);
  try {
    const { loadEngine } = await import("../../../src/protocol/engine/select.ts");
    expect((await loadEngine()).name).toBe("portable");
  } finally {
    vi.unstubAllGlobals();
    vi.resetModules();
  }
});
