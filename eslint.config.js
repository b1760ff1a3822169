import { builtinModules } from "node:module";
import js from "@eslint/js";
import { defineConfig, globalIgnores } from "eslint/config";
import tsdoc from "eslint-plugin-tsdoc";
import tseslint from "typescript-eslint";

/** The bare names of Node's own modules. */
const bareNames = builtinModules.filter((name) => !name.startsWith("node:"));

export default defineConfig(
  globalIgnores(["dist", "coverage", "docs/api"]),
  { linterOptions: { reportUnusedDisableDirectives: "error" } },
  js.configs.recommended,
  {
    rules: {
      eqeqeq: "error",
      "no-restricted-imports": [
        "error",
        { paths: bareNames.map((name) => ({ name, message: `Import "node:${name}".` })) },
      ],
      "no-restricted-syntax": [
        "error",
        { selector: "ExportDefaultDeclaration", message: "Export a name, which every import then uses." },
      ],
      // A callback may read a variable before it is assigned, which throws for a constant.
      "prefer-const": ["error", { ignoreReadBeforeAssign: true }],
    },
  },
  {
    // What runs without a build is JavaScript, which has no types to check.
    files: ["**/*.{js,mjs,cjs}"],
    languageOptions: {
      globals: Object.fromEntries(Object.getOwnPropertyNames(globalThis).map((name) => [name, "readonly"])),
    },
  },
  {
    files: ["**/*.{ts,mts}"],
    extends: [tseslint.configs.strictTypeChecked],
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    plugins: { tsdoc },
    rules: {
      "tsdoc/syntax": "error",
      "@typescript-eslint/switch-exhaustiveness-check": [
        "error",
        { considerDefaultExhaustiveForUnions: true },
      ],

      // `(x) => f(x)` is how this code passes on a call, whether or not `f` returns a value.
      "@typescript-eslint/no-confusing-void-expression": ["error", { ignoreArrowShorthand: true }],
      // Environment variables are removed by name.
      "@typescript-eslint/no-dynamic-delete": "off",
      // `noUncheckedIndexedAccess` needs it for every index that is known to be valid.
      "@typescript-eslint/no-non-null-assertion": "off",
      // It sees neither assignments in callbacks nor callers without types.
      "@typescript-eslint/no-unnecessary-condition": "off",
      // A constructor can narrow the types of its parameters.
      "@typescript-eslint/no-useless-constructor": "off",
      // What was caught is passed on unchanged; the reason of an AbortSignal can be any value.
      "@typescript-eslint/prefer-promise-reject-errors": [
        "error",
        { allowThrowingAny: true, allowThrowingUnknown: true },
      ],
      // A method that returns a promise is `async` so that what it throws is a rejection.
      "@typescript-eslint/require-await": "off",
      "@typescript-eslint/restrict-template-expressions": ["error", { allowNumber: true }],
    },
  },
  {
    // The tools load these by their default export.
    files: ["*.config.{js,ts}", "test/support/closing-reporter.ts"],
    rules: { "no-restricted-syntax": "off" },
  },
);
