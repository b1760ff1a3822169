/** The services behind the pairs whose load generators are other programs: Redis, nginx and PostgreSQL. */
import { chownSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { directory, end, freePort, launch, listening, runProgram, which } from "./processes.mjs";

const POSTGRESQL = "/usr/lib/postgresql";

/** Directory of the programs of the newest PostgreSQL, or undefined. */
function postgresqlPrograms() {
  try {
    const [newest] = readdirSync(POSTGRESQL).sort((a, b) => Number(b) - Number(a));
    const programs = join(POSTGRESQL, newest, "bin");
    return readdirSync(programs).includes("initdb") ? programs : undefined;
  } catch {
    return undefined;
  }
}

async function startRedis() {
  const port = await freePort();
  const options = ["--port", String(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
  const child = launch([which("redis-server"), ...options, "--dir", directory], { stdio: "ignore" });
  await listening(port, child);
  return { port, end: () => end(child) };
}

async function startNginx() {
  const port = await freePort();
  const home = join(directory, "nginx");
  mkdirSync(home, { recursive: true });
  writeFileSync(join(home, "file"), "x".repeat(100));
  const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
    .map((name) => `${name}_temp_path ${home};`)
    .join(" ");
  writeFileSync(
    join(home, "nginx.conf"),
    `daemon off; master_process off; worker_processes 1; pid ${home}/pid; error_log stderr crit;
events { worker_connections 4096; }
http {
  access_log off; keepalive_requests 1000000000; ${temporary}
  server { listen 127.0.0.1:${port} backlog=4096; location = /status { stub_status; } location / { root ${home}; } }
}
`,
  );
  const child = launch([which("nginx"), "-p", home, "-c", join(home, "nginx.conf")], { stdio: "ignore" });
  await listening(port, child);
  return { port, end: () => end(child) };
}

/** Sends a request and returns what is received until the service closes the connection. */
async function query(port, request) {
  const socket = connect({ port, host: "127.0.0.1", timeout: 10_000 });
  socket.on("timeout", () => socket.destroy(new Error("the service does not respond")));
  socket.end(request);
  return text(socket);
}

const numberIn = (response, pattern) => Number(pattern.exec(response)[1]);

/** Counters of Redis: clients that are connected, and requests since it started. */
async function readRedis(port) {
  const response = await query(port, "INFO\r\n");
  return {
    // This query has a connection of its own.
    open: numberIn(response, /^connected_clients:(\d+)/m) - 1,
    requests: numberIn(response, /^total_commands_processed:(\d+)/m),
  };
}

/** The same counters of nginx. */
async function readNginx(port) {
  const response = await query(port, "GET /status HTTP/1.0\r\n\r\n");
  return {
    open: numberIn(response, /^Active connections: (\d+)/m) - 1,
    requests: numberIn(response, /^ \d+ \d+ (\d+)/m),
  };
}

/** PostgreSQL with the tables of pgbench. It does not run as root. */
async function startPostgresql() {
  const programs = postgresqlPrograms();
  const home = mkdtempSync(join(tmpdir(), "spiped-bench-postgresql-"));
  const removeHome = () => rmSync(home, { recursive: true, force: true });
  process.once("exit", removeHome);
  let asUser = [];
  if (process.getuid() === 0) {
    const [uid, gid] = await Promise.all(
      ["-u", "-g"].map(async (option) => Number(await runProgram(["id", option, "postgres"]))),
    );
    chownSync(home, uid, gid);
    asUser = ["setpriv", `--reuid=${uid}`, `--regid=${gid}`, "--clear-groups"];
  }
  const data = join(home, "data");
  const run = (...command) => runProgram([...asUser, ...command], { cwd: home });
  await run(join(programs, "initdb"), "--no-sync", "--auth=trust", "--username=bench", "-D", data);
  const port = await freePort();
  const options = ["-D", data, "-p", String(port), "-h", "127.0.0.1", "-k", "", "-F", "-N", "100"];
  // SIGQUIT makes it end its children.
  const child = launch([...asUser, join(programs, "postgres"), ...options], {
    stdio: "ignore",
    cwd: home,
    signal: "SIGQUIT",
  });
  const endPostgresql = async () => {
    await end(child, "SIGQUIT");
    removeHome();
    process.removeListener("exit", removeHome);
  };
  try {
    await listening(port, child);
    await run("pgbench", "-i", "-q", "-h", "127.0.0.1", "-p", String(port), "-U", "bench", "postgres");
  } catch (error) {
    await endPostgresql();
    throw error;
  }
  return { port, end: endPostgresql };
}

/** Each service: how it starts, how its counters are read, and the programs that its rows need. */
const SERVICES = {
  redis: { start: startRedis, read: readRedis, programs: ["redis-server", "redis-benchmark"] },
  nginx: { start: startNginx, read: readNginx, programs: ["nginx", "wrk"] },
  postgresql: { start: startPostgresql, programs: ["pgbench"] },
};

const running = new Map();

/** Returns a program that a service or its load generator lacks on this machine, or undefined. */
export function missingProgram(service) {
  if (service === undefined) return undefined;
  if (service === "postgresql" && postgresqlPrograms() === undefined) return "postgresql";
  return SERVICES[service].programs.find((program) => which(program) === undefined);
}

/** Returns the port of a service, which is started at the first call. */
export async function portOf(service) {
  if (!running.has(service)) running.set(service, await SERVICES[service].start());
  return running.get(service).port;
}

/** Returns the counters of a service that is running. */
export const readCounters = (service) => SERVICES[service].read(running.get(service).port);

export async function endServices() {
  await Promise.all([...running.values()].map((service) => service.end()));
}
