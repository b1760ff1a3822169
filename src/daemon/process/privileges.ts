/**
 * Changing to another user (`-u`). What is named decides what happens:
 *
 *     user         its primary group and its supplementary groups, then the user
 *     user:group   no supplementary groups, the group, then the user
 *     :group       no supplementary groups, the group
 *
 * The original leaves the group of `-u user` as it is, and goes on if it can't leave the supplementary groups.
 */
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { SpipedError } from "../../errors.ts";
import { systemProgram } from "./system-program.ts";

/** Privileges could not be dropped; nothing may be served. */
export class PrivilegeError extends SpipedError {
  constructor(message: string) {
    super("ERR_SPIPED_PRIVILEGES", message);
  }
}

/**
 * Real groups of a process that starts workers: nobody's. The second one is for daemons whose own group is the first.
 */
const UNPRIVILEGED_GROUPS = [65_534, 65_533] as const;

/**
 * Drops privileges for good. To be called once, before any other thread could hold them.
 *
 * A process that changes its user can't be read by others of the same user: the kernel marks it as not dumpable. A
 * program that it starts loses that mark, unless its effective group is not its real one. So a process that starts
 * workers gets a real group that gives no access, and has the group that was asked for as its effective one.
 *
 * @param spec `user`, `user:group` or `:group`; names, or ids where there is no such name.
 * @param startsWorkers whether processes that this one starts must be as protected as this one.
 * @throws PrivilegeError, or the system's error.
 */
export function dropPrivileges(spec: string, startsWorkers: boolean): void {
  const { user, group, userName } = lookUpOwner(spec);
  // Only root can change groups, and who is that user already has nothing to give up.
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
        `No primary group known for user ${userName}: name a group with -u ${userName}:GROUP`,
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
 * The ids that a specification stands for, for the owner of a file; -1 where it leaves one as it is.
 *
 * @param spec as for `dropPrivileges`; a user alone leaves the group as it is.
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

/** Node's types leave this one out. */
const { initgroups } = process as unknown as { initgroups(user: string, extraGroup: number): void };

/** Checks that the change took effect and can't be undone. */
function verify(uid: number | undefined, gid: number | undefined, realGid = gid): void {
  if (!holds(uid, gid, realGid) || (uid !== undefined && uid !== 0 && canBecomeRoot())) {
    throw new PrivilegeError("Privileges are still held after dropping them");
  }
}

/** True if the process is this user and group, as far as they are given. */
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

/** A user or group: without a name if it is known by its number only. */
interface Entry {
  readonly id: number;
  readonly name?: string;
  /** A user's primary group. */
  readonly gid?: number;
}

/** Looks a name or number up in the system's databases. */
function lookUp(database: "passwd" | "group", name: string): Entry | undefined {
  const line = databaseLine(database, name);
  if (line !== undefined) {
    const [entryName, , id, gid] = line.split(":");
    const entry = { id: Number(id), name: entryName! };
    return database === "passwd" ? { ...entry, gid: Number(gid) } : entry;
  }
  return /^\d+$/.test(name) ? { id: Number(name) } : undefined;
}

/** `getent` asks every source that the system is set up for; without it there is still the file. */
function databaseLine(database: "passwd" | "group", key: string): string | undefined {
  try {
    const { error, stdout } = spawnSync(systemProgram("getent"), [database, "--", key], {
      encoding: "utf8",
      stdio: ["ignore", "pipe", "ignore"],
      env: {},
    });
    if (error === undefined) return stdout.split("\n")[0] || undefined;
  } catch {
    // It is not there, or not to be trusted.
  }
  const lines = readFileSync(`/etc/${database}`, "utf8").split("\n");
  return lines.find((line) => {
    const [name, , id] = line.split(":");
    return name === key || id === key;
  });
}
