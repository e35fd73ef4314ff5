/**
 * One process at a time owns a log: an flock on its `lock` file, which the kernel drops however its holder dies.
 * Without the addon LevelDB's own lock on the newest segment is what keeps two owners apart (`recover.ts` reads the
 * anchor again once it holds that).
 */
import { constants } from "node:fs";
import { open } from "node:fs/promises";
import { hasCode, RecoveryLineError } from "../model/errors.ts";
import { call, type NativeAddon, native } from "../ring/binding.ts";
import { lockHolder } from "../ring/reader-lock.ts";
import { lockPath } from "./log-paths.ts";

function addon(): NativeAddon | undefined {
  try {
    return native();
  } catch (error) {
    if (hasCode(error, "RL_NOT_SUPPORTED")) return undefined;
    throw error;
  }
}

/** Takes the lock of the log in `dir` and returns what lets it go. Throws RL_LOCKED, naming the holder. */
export async function lockLog(dir: string): Promise<() => void> {
  const path = lockPath(dir);
  const file = await open(path, constants.O_RDONLY | constants.O_CREAT | constants.O_NOFOLLOW, 0o600);
  await file.close();
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
