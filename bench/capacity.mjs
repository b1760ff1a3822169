/** Computes what one core and one GiB carry from the results of a run, for docs/scale.md. */

/** Rounds to two significant digits. */
const round = (value) => Number(value.toPrecision(2)).toLocaleString("en-US", { maximumFractionDigits: 1 });

/**
 * What is computed: its name, from which rows, and how from their figures. The rows' units are ms per connection, s per
 * GB, us per message, and KiB per connection.
 */
const CAPACITIES = [
  ["new connections per second and core, `-e`", ["connections-encrypting"], (ms) => 1000 / ms],
  ["new connections per second and core, `-d`", ["connections-decrypting"], (ms) => 1000 / ms],
  [
    "minutes for a million new connections, one core",
    ["connections-decrypting"],
    (ms) => (ms * 1e6) / 60_000,
  ],
  ["MB per second and core, sealing", ["up-encrypting"], (seconds) => 1000 / seconds],
  ["MB per second and core, opening", ["up-decrypting"], (seconds) => 1000 / seconds],
  [
    "small messages per second and core",
    ["redis-200-user", "redis-200-system"],
    (user, system) => 1e6 / (user + system),
  ],
  ["idle connections per GiB of memory", ["idle"], (kib) => 2 ** 20 / kib],
  ["GiB of memory for a million idle connections", ["idle"], (kib) => (kib * 1e6) / 2 ** 20],
];

/** Returns the table of docs/scale.md. */
export function formatCapacity({ date, machine, versions, rows }) {
  const lines = CAPACITIES.filter(([, names]) => names.every((name) => rows[name] !== undefined)).map(
    ([title, names, compute]) => {
      const [ours, c] = ["ours", "c"].map((kind) =>
        round(compute(...names.map((name) => rows[name].figures[kind].median))),
      );
      const sources = names.map((name) => `"${rows[name].subject}"`).join(" and ");
      return `| ${title} | ${ours} | ${c} | ${sources} |`;
    },
  );
  return `
| one daemon | this implementation | Tarsnap's | computed from |
|---|---|---|---|
${lines.join("\n")}

${date.slice(0, 10)}, ${machine.processor}, Node ${versions.node}, ${versions.spiped}.
`;
}
