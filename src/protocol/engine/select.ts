/** The choice between the engines. */
import type { Engine } from "./engine.ts";
import { createNativeEngine, nativeIsAvailable } from "./native.ts";
import { portableEngine } from "./portable.ts";

let chosen: Engine | undefined;

/** The fastest engine that runs here; the same one each time. */
export function defaultEngine(): Engine {
  chosen ??= nativeIsAvailable() ? createNativeEngine() : portableEngine;
  return chosen;
}
