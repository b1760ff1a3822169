/** Selects an engine. */
import type { Engine } from "./engine.ts";
import { createNativeEngine, nativeIsAvailable } from "./native.ts";
import { portableEngine } from "./portable.ts";

let selected: Engine | undefined;

/** Returns the fastest engine that this runtime supports, always the same object. */
export function defaultEngine(): Engine {
  selected ??= nativeIsAvailable() ? createNativeEngine() : portableEngine;
  return selected;
}
