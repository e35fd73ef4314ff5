/** One reader a ring: an flock that the kernel drops when its holder dies, however it dies. */
import { mkdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { hasCode, RecoveryLineError } from "../model/errors.ts";
import { call, native } from "./binding.ts";

/** The pid that holds an flock on `path`, from /proc/locks; undefined if it is gone or not visible. */
export function lockHolder(path: string): number | undefined {
  const inode = String(statSync(path).ino);
  for (const line of readFileSync("/proc/locks", "utf8").split("\n")) {
    const [, kind, , , pid, file] = line.trim().split(/\s+/);
    if (kind === "FLOCK" && file?.split(":")[2] === inode) return Number(pid);
  }
  return undefined;
}

/** The folder beside a pinned ring that stands for the right to read it (the loader locks the pin directory itself). */
export function readerFolder(pinDir: string): string {
  return join(pinDir, "reader");
}

/**
 * Becomes the only reader of the ring pinned in `pinDir`. Returns the function that lets go.
 * Throws RL_LOCKED, naming the pid, if another process reads already.
 */
export function lockReader(pinDir: string): () => void {
  const addon = native();
  const path = readerFolder(pinDir);
  try {
    mkdirSync(path, { recursive: true, mode: 0o700 });
    const fd = call(path, () => addon.lock(path));
    return () => addon.unlock(fd);
  } catch (error) {
    if (!hasCode(error, "RL_LOCKED")) throw error;
    throw new RecoveryLineError(
      "RL_LOCKED",
      `the ring in ${pinDir} is being read by process ${lockHolder(path) ?? "unknown"}`,
      "One collector reads a ring. Stop the other one, or use another pin directory.",
      error,
    );
  }
}
