/** The status page: an HTML view of each tunnel's metrics, without scripts. */

/** One value of a metric, as returned by prom-client. */
export interface Sample {
  readonly value: number;
  readonly labels: Readonly<Record<string, string | number | undefined>>;
  readonly metricName?: string;
}

/** All metrics, by name. */
export type Samples = ReadonlyMap<string, readonly Sample[]>;

/** Number of rates that a sparkline shows. */
const HISTORY = 60;
const WIDTH = 180;
const HEIGHT = 36;

/** Keeps the recent rates of each tunnel and renders the page. */
export class StatusPage {
  readonly #history = new Map<string, number[]>();
  readonly #lastBytes = new Map<string, number>();
  readonly #interval: number;

  /** @param interval - time between calls of `record()`, in ms. */
  constructor(interval: number) {
    this.#interval = interval;
  }

  /** Records the current byte counts for the sparklines. */
  record(samples: Samples): void {
    for (const tunnel of tunnelsOf(samples)) {
      const now = sum(samples, "spiped_bytes_total", { tunnel });
      const before = this.#lastBytes.get(tunnel) ?? now;
      this.#lastBytes.set(tunnel, now);
      const rates = this.#history.get(tunnel) ?? [];
      rates.push(Math.max(0, now - before) / (this.#interval / 1000));
      this.#history.set(tunnel, rates.slice(-HISTORY));
    }
  }

  /**
   * Returns the page.
   *
   * @param state - `ready`, or the problems.
   */
  render(samples: Samples, state: string, version: string): string {
    const tunnels = tunnelsOf(samples);
    const rows = tunnels.map((tunnel) => this.#row(samples, tunnel)).join("\n");
    return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta http-equiv="refresh" content="5">
<title>spiped: ${escapeHtml(state)}</title>
<style>
  :root { color-scheme: light dark; --line: light-dark(#0b7285, #66d9e8); --quiet: light-dark(#667, #99a); }
  body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 64rem; padding: 0 1rem; }
  h1 { font-size: 1.3rem; } h1 small { color: var(--quiet); font-weight: normal; }
  table { border-collapse: collapse; width: 100%; }
  th, td { padding: .45rem .7rem; text-align: right; border-bottom: 1px solid light-dark(#ddd, #333); }
  th { font-weight: 600; color: var(--quiet); } th:first-child, td:first-child { text-align: left; }
  td { font-variant-numeric: tabular-nums; }
  svg polyline { fill: none; stroke: var(--line); stroke-width: 1.5; }
  p, li { color: var(--quiet); }
</style>
</head>
<body>
<h1>spiped <small>${escapeHtml(version)}</small> · ${escapeHtml(state)}</h1>
<table>
<thead><tr><th>tunnel</th><th>open</th><th>waiting</th><th>unauthenticated</th><th>accepted</th><th>failed</th><th>encrypted</th><th>decrypted</th><th>throughput</th></tr></thead>
<tbody>
${rows || '<tr><td colspan="9">no connections yet</td></tr>'}
</tbody>
</table>
${failuresOf(samples)}
<p>This page reloads every 5 seconds. The same figures are at <a href="/metrics">/metrics</a>.</p>
</body>
</html>
`;
  }

  #row(samples: Samples, tunnel: string): string {
    const connections = (state: string) => sum(samples, "spiped_connections", { tunnel, state });
    const bytes = (direction: string) =>
      formatBytes(sum(samples, "spiped_bytes_total", { tunnel, direction }));
    const rates = this.#history.get(tunnel) ?? [];
    const cells = [
      escapeHtml(tunnel),
      connections("open"),
      connections("waiting") + connections("connecting"),
      connections("stranger"),
      sum(samples, "spiped_connections_total", { tunnel }),
      sum(samples, "spiped_connection_failures_total", { tunnel }),
      bytes("encrypted"),
      bytes("decrypted"),
      `${sparkline(rates)}<br>${formatBytes(rates.at(-1) ?? 0)}/s`,
    ];
    return `<tr>${cells.map((cell) => `<td>${cell}</td>`).join("")}</tr>`;
  }
}

function tunnelsOf(samples: Samples): string[] {
  const all = samples.get("spiped_connections_total") ?? [];
  return [...new Set(all.map(({ labels }) => String(labels.tunnel)))].sort();
}

function sum(samples: Samples, name: string, labels: Record<string, string>): number {
  const matching = (samples.get(name) ?? []).filter((sample) =>
    Object.entries(labels).every(([label, value]) => sample.labels[label] === value),
  );
  return matching.reduce((total, { value }) => total + value, 0);
}

function failuresOf(samples: Samples): string {
  const failures = (samples.get("spiped_connection_failures_total") ?? []).filter(({ value }) => value > 0);
  if (failures.length === 0) return "";
  const items = failures
    .sort((a, b) => b.value - a.value)
    .map(
      ({ labels, value }) => `<li>${escapeHtml([labels.tunnel, labels.reason].join(": "))}: ${value}</li>`,
    );
  return `<h2>Failed connections</h2>\n<ul>${items.join("")}</ul>`;
}

function sparkline(rates: readonly number[]): string {
  const highest = Math.max(1, ...rates);
  const points = rates.map((rate, i) => {
    const x = WIDTH - (rates.length - 1 - i) * (WIDTH / (HISTORY - 1));
    const y = HEIGHT - 2 - (rate / highest) * (HEIGHT - 4);
    return `${x.toFixed(1)},${y.toFixed(1)}`;
  });
  return `<svg width="${WIDTH}" height="${HEIGHT}" role="img" aria-label="throughput"><polyline points="${points.join(" ")}"/></svg>`;
}

function formatBytes(bytes: number): string {
  const units = ["B", "KB", "MB", "GB", "TB"];
  let value = bytes;
  let unit = 0;
  for (; value >= 1000 && unit < units.length - 1; unit += 1) value /= 1000;
  return `${value.toFixed(unit === 0 || value >= 100 ? 0 : 1)} ${units[unit]!}`;
}

function escapeHtml(text: string): string {
  return text.replace(/[&<>"]/g, (character) => `&#${character.charCodeAt(0)};`);
}
