/** What a user asks of the process, whatever tunnels it serves. */

/** What the command line says of the process. */
export interface ProcessSettings {
  readonly waitForDns: boolean;
  readonly foreground: boolean;
  readonly pidFile: string;
  readonly user: string | undefined;
  /** `auto`: one for each core. */
  readonly workers: number | "auto";
  readonly syslog: boolean;
  readonly logLevel: "warn" | "info";
  readonly logFormat: "text" | "json";
  readonly metrics: string | undefined;
  /** Allow an address of `metrics` that other machines can reach. */
  readonly metricsPublic: boolean;
  /** File with the bearer token that metrics require. */
  readonly metricsToken: string | undefined;
  /** Host names that metrics are asked for under. */
  readonly metricsHosts: readonly string[];
}
