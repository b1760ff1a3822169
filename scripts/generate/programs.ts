/** The programs and their options. */
import type { OptionSpec } from "../../src/config/option-spec.ts";
import { SPIPE_OPTIONS, SPIPED_OPTIONS } from "../../src/config/options.ts";

/** Options by program. */
export const PROGRAMS: Readonly<Record<"spiped" | "spipe", readonly OptionSpec[]>> = {
  spiped: Object.values<OptionSpec>(SPIPED_OPTIONS),
  spipe: Object.values<OptionSpec>(SPIPE_OPTIONS),
};
