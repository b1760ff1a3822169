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
    // Each command is one file with our own code and @noble's. What a program loads is most of its start-up time, and
    // spipe starts once for every SSH session: so the other dependencies stay outside, and are loaded only when an option
    // asks for them. @noble's modules, which only some runtimes need, cannot stay outside: they are ES modules, and some
    // versions of Node print a warning if a file outside node_modules requires one.
    ...common,
    entry: { "bin/spiped": "bin/spiped.ts", "bin/spipe": "bin/spipe.ts" },
    format: ["cjs"],
    outExtension: () => ({ js: ".cjs" }),
    noExternal: [/^@noble\//],
    splitting: false,
    esbuildOptions(options) {
      // `import()` becomes `require()`: Node's loader for ES modules would take longer to load than what is imported.
      options.supported = { ...options.supported, "dynamic-import": false };
      options.minifyWhitespace = true;
      options.minifySyntax = true;
    },
    banner: { js: "#!/usr/bin/env node" },
  },
]);
