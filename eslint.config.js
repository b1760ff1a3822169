import { builtinModules } from "node:module";
import js from "@eslint/js";
import { defineConfig, globalIgnores } from "eslint/config";
import tsdoc from "eslint-plugin-tsdoc";
import tseslint from "typescript-eslint";

/** Names of Node's modules without the prefix `node:`. */
const bareNames = builtinModules.filter((name) => !name.startsWith("node:"));

/** Node's global variables. */
const globals = Object.fromEntries(Object.getOwnPropertyNames(globalThis).map((name) => [name, "readonly"]));

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
        { selector: "ExportDefaultDeclaration", message: "Export a name instead." },
      ],
      // A callback may read a variable before it is assigned, which throws for a constant.
      "prefer-const": ["error", { ignoreReadBeforeAssign: true }],
    },
  },
  {
    // JavaScript has no types to check.
    files: ["**/*.{js,mjs,cjs}"],
    languageOptions: { globals },
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

      // `(x) => f(x)` is short, and clear whether or not `f` returns a value.
      "@typescript-eslint/no-confusing-void-expression": ["error", { ignoreArrowShorthand: true }],
      // The only way to remove an environment variable whose name is a constant.
      "@typescript-eslint/no-dynamic-delete": "off",
      // With `noUncheckedIndexedAccess`, each access with a valid index needs one.
      "@typescript-eslint/no-non-null-assertion": "off",
      // It considers neither assignments in callbacks nor callers that are not type-checked.
      "@typescript-eslint/no-unnecessary-condition": "off",
      // `{ name, ...others }` is how to leave out a property.
      "@typescript-eslint/no-unused-vars": ["error", { ignoreRestSiblings: true }],
      // A constructor can narrow the types of its parameters.
      "@typescript-eslint/no-useless-constructor": "off",
      // Caught errors are passed on unchanged, and the reason of an AbortSignal can be any value.
      "@typescript-eslint/prefer-promise-reject-errors": [
        "error",
        { allowThrowingAny: true, allowThrowingUnknown: true },
      ],
      // An `async` function without `await` reports its errors as rejections, as its interface promises.
      "@typescript-eslint/require-await": "off",
      // What a number looks like in a text is clear.
      "@typescript-eslint/restrict-template-expressions": ["error", { allowNumber: true }],
    },
  },
  {
    files: ["test/**/*.ts"],
    rules: {
      // Tests search output for the control characters that it must not contain.
      "no-control-regex": "off",
      // Parsed JSON and the values of events are `any`; a test that expects another type of value fails.
      "@typescript-eslint/no-unsafe-argument": "off",
      "@typescript-eslint/no-unsafe-assignment": "off",
      "@typescript-eslint/no-unsafe-call": "off",
      "@typescript-eslint/no-unsafe-member-access": "off",
      "@typescript-eslint/no-unsafe-return": "off",
      "@typescript-eslint/restrict-plus-operands": ["error", { allowAny: true }],
      "@typescript-eslint/use-unknown-in-catch-callback-variable": "off",
      // A text that contains "undefined" or "[object Object]" makes the test fail.
      "@typescript-eslint/restrict-template-expressions": "off",
    },
  },
  {
    // The tools load these by their default export.
    files: ["*.config.{js,ts}", "test/support/closing-reporter.ts"],
    rules: { "no-restricted-syntax": "off" },
  },
);
