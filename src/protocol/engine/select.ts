/** Selects an engine. */
import type { Engine } from "./engine.ts";
import { createNativeEngine, nativeIsAvailable } from "./native.ts";

let selected: Promise<Engine> | undefined;

/**
 * Resolves with the fastest engine that this runtime supports, always the same object. The portable engine is loaded
 * only if it is needed: the tables of its AES take 5 ms to compute.
 */
export function loadEngine(): Promise<Engine> {
  selected ??= select();
  return selected;
}

async function select(): Promise<Engine> {
  return nativeIsAvailable() ? createNativeEngine() : (await import("./portable.ts")).portableEngine;
}
