/** `spiped`: dispatches the command line and runs the daemon. */
import cluster from "node:cluster";
import { type CommandLineConfig, readConfig } from "../config/config.ts";
import { ConfigError } from "../config/config-error.ts";
import { planTunnel } from "../config/make-plan.ts";
import { PROGRAM } from "../config/options.ts";
import { checkProcess } from "../daemon/check-process.ts";
import { runDaemon } from "../daemon/daemon.ts";
import { stderrLog } from "../daemon/observe/text-log.ts";
import { daemonize, readyCallback } from "../daemon/process/daemonize.ts";
import { setProcessTitle } from "../daemon/process/process-title.ts";
import { limitYoungGeneration } from "../daemon/process/v8-flags.ts";
import { describeFailure } from "../daemon/start-failure.ts";
import { checkSources } from "../daemon/tunnels.ts";
import { isWorker, runWorker } from "../daemon/workers/worker.ts";
import { runProgram } from "./run-program.ts";
import { readArguments, USAGE } from "./spiped-arguments.ts";
import { VERSION } from "./version.ts";

/** Runs `spiped` with its arguments. Resolves to the exit status. */
export async function spiped(argv: readonly string[]): Promise<number> {
  // Tarsnap's programs take no operands, so this does not change the meaning of any of their command lines.
  if (argv[0] === "keys") return (await import("./keys.ts")).keys(argv.slice(1));
  return runProgram(PROGRAM, USAGE, async () => {
    if (isWorker()) {
      limitYoungGeneration();
      setProcessTitle(PROGRAM, argv);
      return runWorker();
    }
    const args = await readArguments(argv);
    if (args.action === "generate-key") return (await import("./key-commands.ts")).generateKey(args.file);
    if (args.action === "check-key") return (await import("./key-commands.ts")).checkKey(args.file);
    if (args.action === "check-config") return checkConfig(args.config, args.file);
    // With this variable, node:cluster would request each listening socket from the parent process.
    if (cluster.isWorker)
      throw new ConfigError(["NODE_UNIQUE_ID is set, as in a worker of node:cluster; unset it"]);
    const reportReady = readyCallback();
    if (args.config.foreground || reportReady !== undefined) {
      limitYoungGeneration();
      setProcessTitle(PROGRAM, argv);
      return runDaemon(args.config, VERSION, reportReady);
    }
    return (await daemonize(argv)) ? 0 : 1;
  });
}

async function checkConfig(config: CommandLineConfig, file: string): Promise<number> {
  const log = stderrLog(PROGRAM);
  const warn = (message: string) => log.warn(message);
  let refused = false;
  const onRejected = (message: string) => {
    refused = true;
    warn(message);
  };
  const options = { waitForDns: false, warn, onUnresolved: warn, onRejected, onIgnored: warn };
  const { process: processSettings, tunnels } = await readConfig(config);
  await checkProcess(processSettings, warn);
  const plans = [];
  for (const settings of tunnels) plans.push(await planTunnel(settings, options));
  try {
    checkSources(plans.filter((plan) => plan !== undefined));
  } catch (error) {
    throw describeFailure(error);
  }
  if (refused) return 1;
  process.stdout.write(`${file}: configuration OK\n`);
  return 0;
}
