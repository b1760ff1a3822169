/** The chart of a run: bars for this implementation, Tarsnap's and stunnel. */

const PANELS = [
  ["up", "Bulk, one connection", "MB/s, higher is better"],
  ["parallel", "Bulk, 8 connections", "MB/s, higher is better"],
  ["connections", "New connections", "per second, higher is better"],
  ["echo", "64-byte echo", "µs, median, lower is better"],
  ["up-decrypting", "CPU time, decrypting", "s per GB, lower is better"],
  ["idle", "Memory, idle connection", "KiB, lower is better"],
];
const NAMES = { ours: "spiped for Node", c: "Tarsnap's spiped", stunnel: "stunnel" };
const WIDTH = 860;
const PANEL = { width: 400, height: 132, left: 20, top: 64 };

const escapeXml = (text) => text.replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);
const format = (value) => (value >= 100 ? value.toFixed(0) : value.toPrecision(2));

/** Returns an SVG of the results of a run, as written by `run.mjs`. */
export function drawChart(report) {
  const panels = PANELS.filter(([name]) => report.rows[name] !== undefined);
  const height = PANEL.top + Math.ceil(panels.length / 2) * PANEL.height + 8;
  const { machine, versions, date } = report;
  const caption = `${date.slice(0, 10)}, ${machine.processor}, ${machine.cores} cores, Node ${versions.node}, ${versions.spiped}; medians of ${report.rounds}`;
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" role="img" aria-label="Performance compared with Tarsnap's spiped and stunnel">
<style>
  svg { font: 13px system-ui, sans-serif; fill: #24292f; }
  .back { fill: #ffffff; } .title { font-size: 18px; font-weight: 600; } .head { font-weight: 600; }
  .quiet { fill: #57606a; font-size: 12px; }
  .ours { fill: #0b7285; } .c { fill: #adb5bd; } .stunnel { fill: #dee2e6; }
  @media (prefers-color-scheme: dark) {
    svg { fill: #e6edf3; } .back { fill: #0d1117; } .quiet { fill: #9198a1; }
    .ours { fill: #3bc9db; } .c { fill: #6e7681; } .stunnel { fill: #30363d; }
  }
</style>
<rect class="back" width="${WIDTH}" height="${height}"/>
<text class="title" x="20" y="28">Compared with Tarsnap's spiped and stunnel, on the same machine in the same run</text>
<text class="quiet" x="20" y="48">${escapeXml(caption)}</text>
${panels.map(([name, title, unit], i) => drawPanel(report.rows[name], title, unit, i)).join("\n")}
</svg>
`;
}

function drawPanel({ figures }, title, unit, index) {
  const x = PANEL.left + (index % 2) * (PANEL.width + 20);
  const y = PANEL.top + Math.floor(index / 2) * PANEL.height + 14;
  const kinds = Object.keys(NAMES).filter((kind) => figures[kind] !== undefined);
  const highest = Math.max(...kinds.map((kind) => figures[kind].median));
  const bars = kinds.map((kind, i) => {
    const width = Math.max(2, (figures[kind].median / highest) * 200);
    const top = y + 12 + i * 26;
    return `<text x="${x}" y="${top + 14}">${NAMES[kind]}</text><rect class="${kind}" x="${x + 120}" y="${top}" width="${width.toFixed(1)}" height="19" rx="2"/><text x="${(x + 126 + width).toFixed(1)}" y="${top + 14}">${format(figures[kind].median)}</text>`;
  });
  return `<text x="${x}" y="${y}"><tspan class="head">${title}</tspan> <tspan class="quiet">${unit}</tspan></text>\n${bars.join("\n")}`;
}
