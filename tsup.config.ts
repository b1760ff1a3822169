import { defineConfig } from "tsup";

const common = { target: "node20", sourcemap: true, clean: false } as const;

export default defineConfig([
  {
    // An ES module only, which `require()` loads too: with a second build for CommonJS, a program could have two classes
    // named Secret, each rejecting the other's objects.
    ...common,
    entry: { index: "src/index.ts" },
    format: ["esm"],
    dts: { compilerOptions: { stripInternal: true } },
  },
  {
    // Each command is one file with our own code, @noble's and commander's, which every start needs: what a program loads is most
    // of its start-up time, and spipe starts once for every SSH session. The other dependencies stay outside, and are
    // loaded only when an option asks for them.
    ...common,
    entry: { "bin/spiped": "bin/spiped.ts", "bin/spipe": "bin/spipe.ts" },
    format: ["cjs"],
    outExtension: () => ({ js: ".cjs" }),
    noExternal: [/^@noble\//, "commander"],
    splitting: false,
    banner: { js: "#!/usr/bin/env node" },
  },
]);
