/**
 * Assembles src/protocol/engine/kernel.wat and writes its bytes, in base64, to src/protocol/engine/kernel-bytes.ts, which is
 * committed so that neither build nor tests depend on an assembler. `--check` only compares.
 */
import { readFileSync, writeFileSync } from "node:fs";
import wabt from "wabt";

const source = new URL("../src/protocol/engine/kernel.wat", import.meta.url);
const target = new URL("../src/protocol/engine/kernel-bytes.ts", import.meta.url);

const { parseWat } = await wabt();
const parsed = parseWat("kernel.wat", readFileSync(source, "utf8"), { simd: true, bulk_memory: true });
parsed.validate();
const { buffer } = parsed.toBinary({});
const lines = Buffer.from(buffer)
  .toString("base64")
  .replace(/.{1,100}/g, '  "$&" +\n')
  .replace(/ \+\n$/, ";\n");
const text = `/** kernel.wat, assembled by scripts/build-kernel.mjs. */\nexport const KERNEL_BASE64 =\n${lines}`;

if (process.argv.includes("--check")) {
  if (readFileSync(target, "utf8") !== text) {
    process.stderr.write("kernel-bytes.ts is not what kernel.wat assembles to: run npm run kernel\n");
    process.exit(1);
  }
} else {
  writeFileSync(target, text);
}
