/** One listener for each AbortSignal. */
import { getEventListeners } from "node:events";
import { expect, it } from "vitest";
import { onAbort } from "../../../src/net/on-abort.ts";

it("calls each action once when the signal is aborted, except those that were removed", () => {
  const controller = new AbortController();
  const calls: string[] = [];
  onAbort(controller.signal, () => calls.push("first"));
  const remove = onAbort(controller.signal, () => calls.push("removed"));
  onAbort(controller.signal, () => calls.push("second"));
  expect(getEventListeners(controller.signal, "abort")).toHaveLength(1);
  remove();
  remove();
  controller.abort();
  expect(calls).toEqual(["first", "second"]);
});

it("removes its listener with the last action, and adds it again for the next", () => {
  const controller = new AbortController();
  const calls: string[] = [];
  const removes = ["one", "two"].map((name) => onAbort(controller.signal, () => calls.push(name)));
  removes[0]!();
  expect(getEventListeners(controller.signal, "abort")).toHaveLength(1);
  removes[1]!();
  expect(getEventListeners(controller.signal, "abort")).toHaveLength(0);
  onAbort(controller.signal, () => calls.push("three"));
  controller.abort();
  expect(calls).toEqual(["three"]);
});

it("does nothing without a signal", () => {
  expect(() => onAbort(undefined, () => {})()).not.toThrow();
});
