/**
 * Which files of a tree anybody can write through a mapping: such a store moves no time. Told by inode and by path, and by inode without
 * its device, since file systems (btrfs, overlayfs) tell another one here than stat does: rather one too many.
 */
import { lstatSync, readdirSync, readFileSync } from "node:fs";
import type { ByteString } from "./tree-entry.ts";

export interface MappedFiles {
  has(inode: bigint, path: ByteString): boolean;
}

const SHARED = /^(?<range>\S+) (?<rights>...)s \S+ \S+ (?<inode>\d+) +(?<path>\/.*)$/;
const OWNER_WRITES = 0o200;

/** Read once, of all processes. */
export function mappedFiles(): MappedFiles {
  const inodes = new Set<string>();
  const paths = new Set<ByteString>();
  for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name)))
    for (const line of mapsOf(pid)) {
      const { range, rights, inode, path } = SHARED.exec(line)?.groups ?? {};
      if (range === undefined || (rights![1] !== "w" && !mayBeWritten(pid, range))) continue;
      inodes.add(inode!);
      paths.add(path!);
    }
  return { has: (inode, path) => inodes.has(String(inode)) || paths.has(path) };
}

function mapsOf(pid: string): string[] {
  try {
    return readFileSync(`/proc/${pid}/maps`, "latin1").split("\n");
  } catch {
    return []; // it has ended
  }
}

/** The kernel shows by the link's mode whether the file was opened for writing: else `mprotect` can't make the mapping writable. */
function mayBeWritten(pid: string, range: string): boolean {
  try {
    return (lstatSync(`/proc/${pid}/map_files/${range}`).mode & OWNER_WRITES) !== 0;
  } catch {
    return true;
  }
}
