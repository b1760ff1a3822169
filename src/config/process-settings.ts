/** Settings of the process, from the command line; they are independent of its tunnels. */
export interface ProcessSettings {
  readonly waitForDns: boolean;
  readonly foreground: boolean;
  readonly pidFile: string;
  readonly user: string | undefined;
  /** Number of worker processes; `auto` for one per core. */
  readonly workers: number | "auto";
  readonly syslog: boolean;
  readonly logLevel: "warn" | "info";
  readonly logFormat: "text" | "json";
  readonly metrics: string | undefined;
  /** Allow an address of `metrics` that other machines can reach. */
  readonly metricsPublic: boolean;
  /** File with the bearer token required for metrics. */
  readonly metricsToken: string | undefined;
  /** Additional host names accepted in requests for metrics. */
  readonly metricsHosts: readonly string[];
}
