/** A plain engine to compare and build on until the pooled ones land. */
import { createCipheriv, createHmac } from "node:crypto";
import type { Engine } from "./engine.ts";
import { PacketError } from "./errors.ts";
export function defaultEngine(): Engine {
  return {
    name: "native",
    createSealer({ encrypt, mac }) {
      const e = Uint8Array.from(encrypt),
        m = Uint8Array.from(mac);
      let n = 0n;
      return {
        seal(data, out) {
          let o = 0;
          for (let i = 0; i < data.length; i += 1024) {
            const p = Buffer.alloc(1028);
            const d = data.subarray(i, i + 1024);
            p.set(d);
            p.writeUInt32BE(d.length, 1024);
            const iv = Buffer.alloc(16);
            iv.writeBigUInt64BE(n++);
            const ct = createCipheriv("aes-256-ctr", e, iv).update(p);
            out.set(ct, o);
            out.set(createHmac("sha256", m).update(ct).update(iv.subarray(0, 8)).digest(), o + 1028);
            o += 1060;
          }
          return o;
        },
        destroy() {},
      };
    },
    createOpener({ encrypt, mac }) {
      const e = Uint8Array.from(encrypt),
        m = Uint8Array.from(mac);
      let n = 0n;
      let carry = Buffer.alloc(0);
      const self = {
        failure: undefined as PacketError | undefined,
        open(wire: Uint8Array, out: Uint8Array) {
          if (self.failure) return 0;
          carry = Buffer.concat([carry, wire]);
          let o = 0;
          while (carry.length >= 1060) {
            const ct = carry.subarray(0, 1028);
            const iv = Buffer.alloc(16);
            iv.writeBigUInt64BE(n);
            if (
              !createHmac("sha256", m)
                .update(ct)
                .update(iv.subarray(0, 8))
                .digest()
                .equals(carry.subarray(1028, 1060))
            ) {
              self.failure = new PacketError("ERR_SPIPED_BAD_MAC", n, "bad mac");
              return o;
            }
            n++;
            const p = createCipheriv("aes-256-ctr", e, iv).update(ct);
            const l = p.readUInt32BE(1024);
            out.set(p.subarray(0, l), o);
            o += l;
            carry = carry.subarray(1060);
          }
          return o;
        },
        end() {
          if (carry.length) self.failure ??= new PacketError("ERR_SPIPED_TRUNCATED", n, "cut");
          return self.failure;
        },
        destroy() {},
      };
      return self;
    },
  };
}
