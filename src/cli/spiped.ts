/** `spiped`: the daemon, from its command line to its end. */
import cluster from "node:cluster";
import { ConfigError } from "../config/config-error.ts";
import { readTunnels } from "../config/config-file.ts";
import { planTunnel } from "../config/make-plan.ts";
import { PROGRAM } from "../config/options.ts";
import { runDaemon } from "../daemon/daemon.ts";
import { stderrLog } from "../daemon/observe/text-log.ts";
import { daemonize, takeReadyReport } from "../daemon/process/daemonize.ts";
import { showProcessAs } from "../daemon/process/process-title.ts";
import { keepHeapSmall } from "../daemon/process/v8-flags.ts";
import { describeFailure } from "../daemon/start-failure.ts";
import { checkSources } from "../daemon/tunnels.ts";
import { isWorker, runWorker } from "../daemon/workers/worker.ts";
import { checkKey, generateKey } from "./key-commands.ts";
import { runProgram } from "./run-program.ts";
import { readArguments, USAGE } from "./spiped-arguments.ts";
import { VERSION } from "./version.ts";

/** Runs `spiped` with its arguments; returns the exit status. */
export async function spiped(argv: readonly string[]): Promise<number> {
  // Upstream's programs take no operand, so no command line of theirs changes its meaning.
  if (argv[0] === "keys") return (await import("./keys.ts")).keys(argv.slice(1));
  return runProgram(PROGRAM, USAGE, async () => {
    if (isWorker()) {
      keepHeapSmall();
      showProcessAs(PROGRAM, argv);
      return runWorker();
    }
    const args = readArguments(argv);
    if (args.action === "generate-key") return generateKey(args.file);
    if (args.action === "check-key") return checkKey(args.file);
    if (args.action === "check-config") return checkConfig(args.config);
    // Node would have such a process ask its parent for each socket.
    if (cluster.isWorker)
      throw new ConfigError(["NODE_UNIQUE_ID is set, as for a worker of node:cluster: unset it"]);
    const reportReady = takeReadyReport();
    if (args.process.foreground || reportReady !== undefined) {
      keepHeapSmall();
      showProcessAs(PROGRAM, argv);
      return runDaemon(args, VERSION, reportReady);
    }
    return (await daemonize(argv)) ? 0 : 1;
  });
}

async function checkConfig(path: string): Promise<number> {
  const log = stderrLog(PROGRAM);
  const warn = (message: string) => log.warn(message);
  let refused = false;
  const refuse = (message: string) => {
    refused = true;
    warn(message);
  };
  const options = { waitForDns: false, warn, unresolved: warn, refuse, ignore: warn };
  const plans = [];
  for (const settings of await readTunnels(path)) plans.push(await planTunnel(settings, options));
  try {
    checkSources(plans.filter((plan) => plan !== undefined));
  } catch (error) {
    throw describeFailure(error);
  }
  if (refused) return 1;
  process.stdout.write(`${path}: all is well\n`);
  return 0;
}
