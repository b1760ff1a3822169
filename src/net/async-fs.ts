/**
 * Asynchronous functions of `node:fs` as promises. `node:fs/promises` has the same ones, but loading it takes a
 * millisecond, which is much of the start-up time of `spipe`, and half a megabyte.
 */
import fs from "node:fs";
import { promisify } from "node:util";

export const lstat = promisify(fs.lstat);
export const readFile = promisify(fs.readFile);
export const stat = promisify(fs.stat);
export const unlink = promisify(fs.unlink);
