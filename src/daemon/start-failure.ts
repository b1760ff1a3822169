/** Describes failures to start or reload tunnels, for standard error and the log. */
import { bindHint } from "../config/address-hints.ts";
import { ConfigError, UsageError } from "../config/config-error.ts";
import { formatAddress } from "../net/address.ts";
import { systemErrorText } from "../net/system-error.ts";
import { BindError } from "./tunnels.ts";

/** Returns the error to report when starting or reloading tunnels has failed. */
export function describeFailure(error: unknown): ConfigError {
  if (error instanceof ConfigError) return error;
  if (error instanceof UsageError) return new ConfigError([error.upstreamMessage ?? error.message]);
  if (!(error instanceof BindError)) return new ConfigError([systemErrorText(error)]);
  const { name, source } = error.plan;
  const hint = bindHint(source, error.cause);
  const hints = hint === undefined ? [] : [hint];
  return name === undefined
    ? new ConfigError([`Error binding socket: ${error.message}`, ...hints])
    : new ConfigError([
        `${name}: Error binding socket ${formatAddress(source)}: ${error.message}`,
        ...hints.map((line) => `${name}: ${line}`),
      ]);
}
