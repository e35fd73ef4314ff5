/**
 * Files that processes have mapped shared and writable. CRIU's image holds the mapping, not the file's contents: after a restore the
 * program would see what was written after the checkpoint, or nothing, and no error would say so.
 */
import { readFileSync } from "node:fs";

/** What is no file of its own, or what an image does hold: deleted files, memory files, System V segments, /dev/zero. */
const HELD = / \(deleted\)$|^\/memfd:|^\/SYSV|^\/dev\/zero$/;

/** Their paths, each once, in order of finding. A process that has ended maps nothing. */
export function sharedFiles(pids: readonly number[]): string[] {
  const found = new Set<string>();
  for (const pid of pids)
    for (const line of mapsOf(pid).split("\n")) {
      const [, path] = /^\S+ .w.s \S+ \S+ \S+ +(\/.*)$/.exec(line) ?? [];
      if (path !== undefined && !HELD.test(path)) found.add(path);
    }
  return [...found];
}

function mapsOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/maps`, "utf8");
  } catch {
    return "";
  }
}
