/** The chart of a run: bars for each program, a fresh pair in the left column beside a warm one in the right. */

/** Rows of panels: the name of a row in the results, the title and the unit of each. */
const SECTIONS = [
  {
    heads: ["Cold: a fresh pair", "Warm: after some seconds of traffic"],
    panels: [
      [
        ["first", "First connection, to its first echo", "ms, lower is better"],
        ["connections", "Connections, 16 at a time", "per second, higher is better"],
      ],
      [
        ["first-following", "64-byte echo, 2nd to 10th", "µs, lower is better"],
        ["echo", "64-byte echo", "µs, median, lower is better"],
      ],
      [
        ["up-cold", "Bulk, first 64 MiB", "MB/s, higher is better"],
        ["up", "Bulk", "MB/s, higher is better"],
      ],
      [
        ["burst", "2000 connections at once", "served per second, higher is better"],
        ["redis-200", "Redis GET, 200 clients", "per second, higher is better"],
      ],
    ],
  },
  {
    heads: ["Start and memory", "Memory and CPU time under load"],
    panels: [
      [
        ["spipe", "spipe, start to first byte", "ms, lower is better"],
        ["idle", "Memory per idle connection", "KiB, lower is better"],
      ],
      [
        ["idle-daemon", "Memory of an idle daemon", "MiB, lower is better"],
        ["redis-200-user", "User time per small message", "µs per daemon, lower is better"],
      ],
    ],
  },
];
const NAMES = {
  ours: "spiped for Node",
  c: "Tarsnap's spiped",
  stunnel: "stunnel",
  plain: "Node, unencrypted",
  node: "Node alone",
};
const WIDTH = 860;
const COLUMNS = [20, 440];
const BAR = { height: 19, step: 26, left: 136, width: 184 };

const escapeXml = (text) => text.replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);
const format = (value) => (value >= 100 ? value.toFixed(0) : value.toPrecision(2));

/** Returns an SVG of the results of a run, as written by `run.mjs`. */
export function drawChart(report) {
  let top = 72;
  const parts = [];
  for (const { heads, panels } of SECTIONS) {
    const rows = panels
      .map((row) => row.map((panel) => drawable(report, panel)))
      .filter((row) => row.some(Boolean));
    if (rows.length === 0) continue;
    heads.forEach((head, i) => {
      parts.push(`<text class="section" x="${COLUMNS[i]}" y="${top + 12}">${escapeXml(head)}</text>`);
    });
    top += 38;
    for (const row of rows) {
      row.forEach((panel, i) => {
        if (panel !== undefined) parts.push(drawPanel(panel, COLUMNS[i], top));
      });
      top += 40 + BAR.step * Math.max(...row.map((panel) => panel?.bars.length ?? 0));
    }
  }
  const { machine, versions, date } = report;
  const caption = `${date.slice(0, 10)}, ${machine.processor}, ${machine.cores} cores, Node ${versions.node}, ${versions.spiped}; medians of ${report.rounds}`;
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${top}" role="img" aria-label="Performance compared with Tarsnap's spiped, of a fresh pair and of a warm one">
<style>
  svg { font: 13px system-ui, sans-serif; fill: #24292f; }
  .back { fill: #ffffff; } .title { font-size: 18px; font-weight: 600; } .head { font-weight: 600; }
  .section { font-size: 15px; font-weight: 600; fill: #0b7285; }
  .quiet { fill: #57606a; font-size: 12px; }
  .ours { fill: #0b7285; } .c { fill: #adb5bd; } .stunnel, .plain, .node { fill: #dee2e6; }
  @media (prefers-color-scheme: dark) {
    svg { fill: #e6edf3; } .back { fill: #0d1117; } .quiet { fill: #9198a1; } .section { fill: #3bc9db; }
    .ours { fill: #3bc9db; } .c { fill: #6e7681; } .stunnel, .plain, .node { fill: #30363d; }
  }
</style>
<rect class="back" width="${WIDTH}" height="${top}"/>
<text class="title" x="20" y="28">Compared with Tarsnap's spiped, on the same machine in the same run</text>
<text class="quiet" x="20" y="48">${escapeXml(caption)}</text>
${parts.join("\n")}
</svg>
`;
}

/** Returns a panel and its bars, or undefined if the run has no such row. */
function drawable(report, [name, title, unit]) {
  const figures = report.rows[name]?.figures;
  if (figures === undefined) return undefined;
  const bars = Object.keys(NAMES)
    .filter((kind) => figures[kind] !== undefined)
    .map((kind) => ({ kind, value: figures[kind].median }));
  return { title, unit, bars };
}

function drawPanel({ title, unit, bars }, x, top) {
  const highest = Math.max(...bars.map(({ value }) => value));
  const lines = bars.map(({ kind, value }, i) => {
    const width = Math.max(2, (value / highest) * BAR.width);
    const y = top + 12 + i * BAR.step;
    return `<text x="${x}" y="${y + 14}">${NAMES[kind]}</text><rect class="${kind}" x="${x + BAR.left}" y="${y}" width="${width.toFixed(1)}" height="${BAR.height}" rx="2"/><text x="${(x + BAR.left + 6 + width).toFixed(1)}" y="${y + 14}">${format(value)}</text>`;
  });
  return `<text x="${x}" y="${top}"><tspan class="head">${escapeXml(title)}</tspan> <tspan class="quiet">${escapeXml(unit)}</tspan></text>\n${lines.join("\n")}`;
}
