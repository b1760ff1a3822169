/** The library as other programs load it: one ES module, and its types. */
import { mkdirSync, readdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import ts from "typescript";
import { beforeAll, describe, expect, it } from "vitest";
import { run, temporaryDirectory } from "../../support/programs.ts";

const DECLARATIONS = resolve("dist/index.d.ts");
const OPTIONS: ts.CompilerOptions = {
  strict: true,
  noEmit: true,
  target: ts.ScriptTarget.ES2022,
  types: ["node"],
  typeRoots: [resolve("node_modules/@types")],
};

/** Packs the package, and installs it in the directory of an empty project. */
async function install(): Promise<string> {
  const directory = temporaryDirectory();
  const npm = (...args: string[]) => run(["npm", ...args], "", { cwd: directory });
  writeFileSync(join(directory, "package.json"), "{}");
  expect(await npm("pack", "--ignore-scripts", resolve("."))).toMatchObject({ status: 0 });
  const archive = readdirSync(directory).find((name) => name.endsWith(".tgz"))!;
  expect(await npm("install", "--prefer-offline", `./${archive}`)).toMatchObject({ status: 0 });
  return directory;
}

it("is the same to import and to require, without a warning", { timeout: 60_000 }, async () => {
  const directory = await install();
  writeFileSync(
    join(directory, "both.cjs"),
    `const required = require("spiped");
    import("spiped").then((imported) => {
      const names = Object.keys(imported);
      const different = names.filter((name) => required[name] !== imported[name]);
      console.log(JSON.stringify({ names, different, required: Object.keys(required) }));
    });`,
  );
  const { status, stdout, stderr } = await run([process.execPath, "both.cjs"], "", { cwd: directory });
  expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
  const { names, different, required } = JSON.parse(String(stdout));
  expect(names).toContain("Secret");
  expect(required).toEqual(names);
  expect(different).toEqual([]);
});

describe("the declarations", () => {
  let program: ts.Program;
  let checker: ts.TypeChecker;
  const exportsOf = (file: string) =>
    checker
      .getExportsOfModule(checker.getSymbolAtLocation(program.getSourceFile(file)!)!)
      .map((symbol) => (symbol.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(symbol) : symbol));
  const SOURCE = resolve("src/index.ts");

  beforeAll(() => {
    program = ts.createProgram([DECLARATIONS, SOURCE], {
      ...OPTIONS,
      module: ts.ModuleKind.NodeNext,
      allowImportingTsExtensions: true,
    });
    checker = program.getTypeChecker();
  });

  /** Returns the static and other members of an exported class or function, by name. */
  function membersOf(symbol: ts.Symbol): ReadonlyMap<string, ts.Symbol> {
    const isClass = (symbol.flags & ts.SymbolFlags.Class) !== 0;
    const statics = checker.getPropertiesOfType(checker.getTypeOfSymbol(symbol));
    const others = isClass ? checker.getPropertiesOfType(checker.getDeclaredTypeOfSymbol(symbol)) : [];
    return new Map([
      ...statics.map((member) => [`static ${member.name}`, member] as const),
      ...others.map((member) => [member.name, member] as const),
    ]);
  }

  const isDeclaredIn = (file: string) => (member: ts.Symbol) =>
    member.declarations?.some((node) => node.getSourceFile().fileName === file) === true;

  it("export the values that exist at run time, and no others", async () => {
    const declared = exportsOf(DECLARATIONS).filter(({ flags }) => flags & ts.SymbolFlags.Value);
    const library = await import(pathToFileURL(resolve("dist/index.js")).href);
    expect(declared.map(({ name }) => name).sort()).toEqual(Object.keys(library).sort());
  });

  it("have only methods that exist at run time", async () => {
    const library = await import(pathToFileURL(resolve("dist/index.js")).href);
    const { Secret, SpipedServer, SpipedSocket } = library;
    const missing: string[] = [];
    for (const [name, Class] of Object.entries({ Secret, SpipedServer, SpipedSocket })) {
      const declared = exportsOf(DECLARATIONS).find((symbol) => symbol.name === name)!;
      for (const [member, symbol] of membersOf(declared)) {
        if (!isDeclaredIn(DECLARATIONS)(symbol) || !(symbol.flags & ts.SymbolFlags.Method)) continue;
        const isStatic = member.startsWith("static ");
        const [holder, key] = isStatic ? [Class, member.slice(7)] : [Class.prototype, member];
        // The compiler's names of symbols begin with two underscores.
        if (!key.startsWith("__") && !(key in holder)) missing.push(member);
      }
    }
    expect(missing).toEqual([]);
  });

  it("have no internal members", () => {
    const declared = new Map(exportsOf(DECLARATIONS).map((symbol) => [symbol.name, membersOf(symbol)]));
    const internal: string[] = [];
    const exposed: string[] = [];
    for (const exported of exportsOf(SOURCE)) {
      for (const [name, member] of membersOf(exported)) {
        if (!member.getJsDocTags(checker).some((tag) => tag.name === "internal")) continue;
        internal.push(`${exported.name}: ${name}`);
        const found = declared.get(exported.name)?.get(name);
        if (found !== undefined && isDeclaredIn(DECLARATIONS)(found))
          exposed.push(`${exported.name}: ${name}`);
      }
    }
    expect(internal).toContain("Secret: static reveal");
    expect(exposed).toEqual([]);
  });
});

describe("a strict program", () => {
  const CONSUMER = `
    import { connect, createServer, httpAgent, loadKey, loadKeys, PacketError, Secret, SpipedServer, SpipedSocket } from "spiped";
    import type { ConnectOptions, HandshakeErrorCode, Key } from "spiped";

    export async function use(file: string): Promise<number | undefined> {
      const key: Secret = await loadKey(file);
      const keys: Key[] = await loadKeys(file);
      const options: ConnectOptions = { host: "localhost", port: 8025, key };
      const socket: SpipedSocket = await connect(options);
      socket.end("hello").on("error", (error: Error) => error instanceof PacketError && error.packetNumber);
      await socket[Symbol.asyncDispose]();
      const server: SpipedServer = createServer({ keys }, (client) => client.pipe(client));
      server.on("refused", (error, { address }) => console.log(error.message, address?.length));
      await server.listen({ port: 0 });
      httpAgent(options).destroy();
      const code: HandshakeErrorCode = "ERR_SPIPED_HANDSHAKE_MAC";
      // @ts-expect-error: other values are not codes.
      const wrong: HandshakeErrorCode = "ERR_SPIPED";
      // @ts-expect-error: internal.
      Secret.reveal(key);
      // @ts-expect-error: internal.
      new SpipedSocket();
      // @ts-expect-error: internal.
      new SpipedServer({ key });
      return code === wrong ? undefined : socket.remotePort;
    }
  `;

  it.each([
    ["an ES module, node16", "consumer.mts", ts.ModuleKind.Node16, ts.ModuleResolutionKind.Node16],
    ["an ES module, nodenext", "consumer.mts", ts.ModuleKind.NodeNext, ts.ModuleResolutionKind.NodeNext],
    ["CommonJS, nodenext", "consumer.cts", ts.ModuleKind.NodeNext, ts.ModuleResolutionKind.NodeNext],
    ["bundled", "consumer.ts", ts.ModuleKind.ESNext, ts.ModuleResolutionKind.Bundler],
  ])("compiles: %s", { timeout: 60_000 }, (_how, name, module, moduleResolution) => {
    const directory = temporaryDirectory();
    mkdirSync(join(directory, "node_modules"));
    symlinkSync(resolve("."), join(directory, "node_modules/spiped"));
    const file = join(directory, name);
    writeFileSync(file, CONSUMER);
    const program = ts.createProgram([file], { ...OPTIONS, module, moduleResolution });
    const errors = ts.getPreEmitDiagnostics(program);
    expect(errors.map(({ messageText }) => ts.flattenDiagnosticMessageText(messageText, "\n"))).toEqual([]);
  });
});
