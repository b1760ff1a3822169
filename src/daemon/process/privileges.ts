/**
 * Changes the user and the group (`-u`). The argument determines what is set, in this order:
 *
 *     user         its primary group and its supplementary groups, then the user
 *     user:group   no supplementary groups, the group, then the user
 *     :group       no supplementary groups, the group
 *
 * Tarsnap's spiped does not change the group for `-u user`, and continues if it cannot drop the supplementary groups.
 */
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { SpipedError } from "../../errors.ts";
import { systemProgram } from "./system-program.ts";

/** Privileges could not be dropped, or a user or group does not exist; the daemon must not serve connections. */
export class PrivilegeError extends SpipedError {
  constructor(message: string) {
    super("ERR_SPIPED_PRIVILEGES", message);
  }
}

/**
 * Real group of a process that starts workers, a group without access. The second is used if the first is the effective
 * one.
 */
const UNPRIVILEGED_GROUPS = [65_534, 65_533] as const;

/**
 * Drops privileges permanently. Call once, before other threads exist that could keep them.
 *
 * The kernel marks a process that changes its user as not dumpable, so other processes of the same user cannot read its
 * memory. A program that it starts loses that mark unless its effective group differs from its real one. So a process
 * that starts workers gets a real group without access, and the requested group as its effective one.
 *
 * @param spec - `user`, `user:group` or `:group`, each a name or, if there is no such name, an ID.
 * @param startsWorkers - true if child processes must be protected in the same way.
 * @throws PrivilegeError, or the system's error.
 */
export function dropPrivileges(spec: string, startsWorkers: boolean): void {
  const { user, group, userName } = lookUpOwner(spec);
  // Only root can change groups, and a process that already is that user has no privileges to drop.
  if (process.geteuid!() !== 0 && holds(user?.id, group?.id)) {
    verify(user?.id, group?.id);
    return;
  }
  const realGroup = (id: number) => (startsWorkers ? UNPRIVILEGED_GROUPS.find((other) => other !== id)! : id);
  const setGroup = (id: number) => {
    process.setgid!(realGroup(id));
    process.setegid!(id);
  };
  if (group !== undefined) {
    process.setgroups!([]);
    setGroup(group.id);
  } else if (user !== undefined) {
    if (user.name === undefined || user.gid === undefined) {
      throw new PrivilegeError(
        `no primary group known for user ${userName}: give one with -u ${userName}:GROUP`,
      );
    }
    initgroups(user.name, user.gid);
    setGroup(user.gid);
  }
  if (user !== undefined) process.setuid!(user.id);
  const gid = group?.id ?? user?.gid;
  verify(user?.id, gid, gid === undefined ? undefined : realGroup(gid));
}

/**
 * Returns the IDs for a specification of a file's owner; -1 leaves one unchanged.
 *
 * @param spec - as for `dropPrivileges()`, except that `user` leaves the group unchanged.
 * @throws PrivilegeError
 */
export function ownerIds(spec: string): { uid: number; gid: number } {
  const { user, group } = lookUpOwner(spec);
  return { uid: user?.id ?? -1, gid: group?.id ?? -1 };
}

function lookUpOwner(spec: string): { userName: string; user: Entry | undefined; group: Entry | undefined } {
  const colon = spec.indexOf(":");
  const userName = colon < 0 ? spec : spec.slice(0, colon);
  const groupName = colon < 0 ? undefined : spec.slice(colon + 1);
  if (spec === "") throw new PrivilegeError('Need to specify user and/or group: ""');
  if (groupName === "") throw new PrivilegeError(`Empty group name: "${spec}"`);

  const user = userName === "" ? undefined : lookUp("passwd", userName);
  const group = groupName === undefined ? undefined : lookUp("group", groupName);
  if (userName !== "" && user === undefined) throw new PrivilegeError(`No such user: ${userName}`);
  if (groupName !== undefined && group === undefined) throw new PrivilegeError(`No such group: ${groupName}`);
  return { userName, user, group };
}

/** Missing from Node's types. */
const { initgroups } = process as unknown as {
  initgroups: (user: string, extraGroup: number) => void;
};

/** Checks that the change took effect and cannot be undone. */
function verify(uid: number | undefined, gid: number | undefined, realGid = gid): void {
  if (!holds(uid, gid, realGid) || (uid !== undefined && uid !== 0 && canBecomeRoot())) {
    throw new PrivilegeError("privileges are still held after dropping them");
  }
}

/** Returns true if the process has this user and group; undefined ones are not checked. */
function holds(uid: number | undefined, gid: number | undefined, realGid = gid): boolean {
  return (
    (uid === undefined || (process.getuid!() === uid && process.geteuid!() === uid)) &&
    (gid === undefined || (process.getgid!() === realGid && process.getegid!() === gid))
  );
}

function canBecomeRoot(): boolean {
  try {
    process.setuid!(0);
    return true;
  } catch {
    return false;
  }
}

/** A user or group; `name` is undefined if only its number is known. */
interface Entry {
  readonly id: number;
  readonly name?: string;
  /** Primary group of a user. */
  readonly gid?: number;
}

/** Looks up a name or number in a system database. */
function lookUp(database: "passwd" | "group", name: string): Entry | undefined {
  const line = databaseLine(database, name);
  if (line !== undefined) {
    const [entryName, , id, gid] = line.split(":");
    const entry = { id: Number(id), name: entryName! };
    return database === "passwd" ? { ...entry, gid: Number(gid) } : entry;
  }
  return /^\d+$/.test(name) ? { id: Number(name) } : undefined;
}

/** Returns the line for a key, from `getent`, which uses all configured sources, or else from the file in /etc. */
function databaseLine(database: "passwd" | "group", key: string): string | undefined {
  try {
    const { error, stdout } = spawnSync(systemProgram("getent"), [database, "--", key], {
      encoding: "utf8",
      stdio: ["ignore", "pipe", "ignore"],
      env: {},
    });
    if (error === undefined) return stdout.split("\n")[0] || undefined;
  } catch {
    // `getent` is missing or not trusted.
  }
  const lines = readFileSync(`/etc/${database}`, "utf8").split("\n");
  return lines.find((line) => {
    const [name, , id] = line.split(":");
    return name === key || id === key;
  });
}
