/** Warnings of Node, such as that of a leak at the eleventh listener for an event. */

/** Runs `action` and returns the warnings that Node emits during it. */
export async function warningsOf(action: () => Promise<void>): Promise<string[]> {
  const warnings: string[] = [];
  const onWarning = ({ name, message }: Error) => void warnings.push(`${name}: ${message}`);
  process.on("warning", onWarning);
  try {
    await action();
    await new Promise((later) => setImmediate(later));
  } finally {
    process.off("warning", onWarning);
  }
  return warnings;
}
