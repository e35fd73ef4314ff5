/**
 * One process at a time owns a log: an flock on its `lock` file, which the kernel drops however its holder dies.
 * Without the addon LevelDB's own lock on the newest segment is what keeps two owners apart (`recover.ts` reads the
 * anchor again once it holds that). LevelDB loses that lock, and says nothing, once its process opens the folder a second
 * time (POSIX drops a process's locks on a file when it closes any descriptor of it), so a process never gets that far.
 */
import { constants } from "node:fs";
import { open } from "node:fs/promises";
import { basename, join } from "node:path";
import { lockHolder } from "../host/reader-lock.ts";
import { lockedBy } from "../host/wait-for-lock.ts";
import { hasCode, RecoveryLineError } from "../model/errors.ts";
import { call, type NativeAddon, native } from "../native/binding.ts";
import { lockPath, makeFolder } from "./log-paths.ts";

function addon(): NativeAddon | undefined {
  try {
    return native();
  } catch (error) {
    if (hasCode(error, "RL_NOT_SUPPORTED")) return undefined;
    throw error;
  }
}

/** Whether `lockLog` keeps others away. Else LevelDB must open whatever is read, to have its own lock. */
export function hasFlock(): boolean {
  return addon() !== undefined;
}

/** Takes the lock of the log in `dir` and returns what lets it go. Throws RL_LOCKED, naming the holder. */
export async function lockLog(dir: string): Promise<() => void> {
  const path = lockPath(dir);
  const file = await open(path, constants.O_RDONLY | constants.O_CREAT | constants.O_NOFOLLOW, 0o600);
  const { dev, ino } = await file.stat().finally(() => file.close());
  const identity = `${dev}:${ino}`;
  if (held.has(identity)) throw locked(dir, process.pid);
  const unlock = flockOf(dir, path);
  held.add(identity);
  return () => {
    held.delete(identity);
    unlock();
  };
}

/** For whoever reads a segment without LevelDB: an owner that has no addon holds LevelDB's lock only. Throws RL_LOCKED. */
export function checkLevelLock(dir: string, folder: string): void {
  if (!hasFlock()) return; // LevelDB will look itself
  const holder = lockHolder(join(folder, "LOCK"), "POSIX");
  if (holder !== undefined) throw locked(dir, holder);
}

/** Lock files of the logs that this process has open, by device and inode. */
const held = new Set<string>();

function flockOf(dir: string, path: string): () => void {
  const locker = addon();
  if (locker === undefined) return () => undefined;
  try {
    const fd = call(path, () => locker.lock(path));
    return () => locker.unlock(fd);
  } catch (error) {
    throw hasCode(error, "RL_LOCKED") ? locked(dir, lockHolder(path), error) : error;
  }
}

export function locked(dir: string, pid: number | undefined, cause?: unknown): RecoveryLineError {
  return new RecoveryLineError(
    "RL_LOCKED",
    `the log in ${dir} is in use by process ${pid ?? "unknown"}`,
    "While a collector lives, ask it (`recovery-line` does so by itself); else wait for the other command.",
    cause,
  );
}
/**
 * Holds the collection of one application: nobody else removes images meanwhile. Throws RL_LOCKED once it has waited for `waitMs`.
 * `dir` is the application's log directory.
 */
export async function lockCollection(dir: string, waitMs = 0): Promise<() => void> {
  const folder = join(dir, "gc");
  await makeFolder(folder);
  try {
    return await lockedBy(performance.now() + waitMs, () => lockLog(folder));
  } catch (error) {
    if (!hasCode(error, "RL_LOCKED")) throw error;
    throw new RecoveryLineError(
      "RL_LOCKED",
      `a gc or a restart of ${basename(dir)} is at work (process ${lockHolder(lockPath(folder)) ?? "unknown"})`,
      "Wait for its end, then call again.",
      error,
    );
  }
}
