/** Types of runner.mjs. */

/** The result of the worlds of a range of seeds. */
interface Result {
  readonly violations: readonly string[];
  readonly lines: readonly string[];
}

export function build(): Promise<{ path: string; remove(): void }>;

export function runSeeds(
  path: string,
  from: number,
  to: number,
  options: {
    readonly jobs: number;
    readonly maxFailures: number;
    readonly hashes?: boolean;
    readonly onFailure: (seed: number, result: Result) => void;
  },
): Promise<{ steps: number; connections: number; failures: number; hashes: Map<number, string> }>;

/** Returns a description of a failure, with the last steps before it. */
export function describeFailure(seed: number, result: Result): string;
