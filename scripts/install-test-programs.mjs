/**
 * Installs the programs that the tests run, for `npm test`: the packages of Debian or Ubuntu in
 * test/support/debian-packages.json that are not installed, after printing their names. Starts none of their services,
 * now or at boot: the tests run their own instances.
 *
 * Without root or apt-get it does nothing. The tests that need a missing program are then skipped, and the end of the
 * run names it.
 */
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";

const PACKAGES = JSON.parse(
  readFileSync(new URL("../test/support/debian-packages.json", import.meta.url), "utf8"),
);

/** The services of these packages, which Debian enables when it installs them. */
const SERVICES = {
  haproxy: ["haproxy.service"],
  "nginx-light": ["nginx.service"],
  "openssh-server": ["ssh.service", "ssh.socket"],
  postfix: ["postfix.service"],
  "redis-server": ["redis-server.service"],
};

/** Debian starts a service when it installs it, unless this program says no. */
const POLICY_FILE = "/usr/sbin/policy-rc.d";
const POLICY =
  "#!/bin/sh\n# Written by the tests of spiped for Node while they install packages.\nexit 101\n";

const run = (command, ...args) =>
  spawnSync(command, args, {
    encoding: "utf8",
    maxBuffer: Number.POSITIVE_INFINITY,
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, DEBIAN_FRONTEND: "noninteractive" },
  });

const FORMAT = "${Status}";
const isInstalled = (name) => run("dpkg-query", "-W", "-f", FORMAT, name).stdout === "install ok installed";

function aptGet(...args) {
  const { status, stderr } = run("apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300", ...args);
  if (status !== 0) process.stderr.write(stderr);
  return status === 0;
}

const install = (...names) => aptGet("install", "-y", "--no-install-recommends", ...names);

function installMissing(missing) {
  const hasPolicy = existsSync(POLICY_FILE) && readFileSync(POLICY_FILE, "utf8") !== POLICY;
  if (!hasPolicy) writeFileSync(POLICY_FILE, POLICY, { mode: 0o755 });
  try {
    aptGet("update");
    // One by one after a failure: a package that this release lacks costs the tests that need it, and no others.
    if (!install(...missing)) for (const name of missing) install(name);
    for (const name of missing) {
      for (const unit of SERVICES[name] ?? []) run("systemctl", "disable", "--quiet", unit);
    }
  } finally {
    if (!hasPolicy) rmSync(POLICY_FILE, { force: true });
  }
}

if (process.getuid?.() === 0 && run("apt-get", "--version").status === 0) {
  const missing = [...new Set(Object.values(PACKAGES))].filter((name) => !isInstalled(name)).sort();
  if (missing.length > 0) {
    console.log(`Installing packages that the tests need: ${missing.join(" ")}`);
    // Ctrl-C ends apt-get, and this process only after the policy file is removed.
    process.on("SIGINT", () => process.exit(130));
    installMissing(missing);
    await new Promise(setImmediate);
  }
}
