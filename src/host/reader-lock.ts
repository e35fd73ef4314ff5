/** One reader a ring: an flock that the kernel drops when its holder dies, however it dies. */
import { mkdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { hasCode, RecoveryLineError } from "../model/errors.ts";
import { call, type NativeAddon, native } from "../native/binding.ts";

/** The kernel hands /proc/locks out page by page: a lock that goes between two pages can hide one that stays. */
const LOOKS = 3;

/** As long as a process that has just been told to end, or its helper, may take to let go. */
const ENDING_MS = 2000;
const TRY_AGAIN_MS = 20;

/** The pid that holds an flock (or a lock of fcntl) on `path`, from /proc/locks; undefined if it is gone or not visible. */
export function lockHolder(path: string, kind: "FLOCK" | "POSIX" = "FLOCK"): number | undefined {
  const inode = statSync(path, { throwIfNoEntry: false })?.ino;
  if (inode === undefined) return undefined;
  for (let look = 0; look < LOOKS; look += 1) {
    const holder = holderIn(String(inode), kind);
    if (holder !== undefined) return holder;
  }
  return undefined;
}

function holderIn(inode: string, wanted: string): number | undefined {
  for (const line of readFileSync("/proc/locks", "utf8").split("\n")) {
    const [, kind, , , pid, file] = line.trim().split(/\s+/);
    if (kind === wanted && file?.split(":")[2] === inode) return Number(pid);
  }
  return undefined;
}

/** The folder beside a pinned ring that stands for the right to read it (the loader locks the pin directory itself). */
export function readerFolder(pinDir: string): string {
  return join(pinDir, "reader");
}

/**
 * Becomes the only reader of the ring pinned in `pinDir`; one that is just ending gets 2 s. Returns the function that lets go.
 * Throws RL_LOCKED, naming the pid, if another process reads already.
 */
export function lockReader(pinDir: string): () => void {
  const addon = native();
  const path = readerFolder(pinDir);
  try {
    mkdirSync(path, { recursive: true, mode: 0o700 });
    const fd = lockPatiently(addon, path);
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

/** The attach helper sees the end of its collector, and ends, a moment later; after a SIGKILL so does the kernel. */
function lockPatiently(addon: NativeAddon, path: string): number {
  const deadlineMs = performance.now() + ENDING_MS;
  for (;;)
    try {
      return call(path, () => addon.lock(path));
    } catch (error) {
      if (!hasCode(error, "RL_LOCKED") || performance.now() > deadlineMs) throw error;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, TRY_AGAIN_MS);
    }
}
