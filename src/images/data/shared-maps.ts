/** What processes have mapped shared and writable, and no image of CRIU holds as it is: files, and System V segments of the host's namespace. */

import { readFileSync } from "node:fs";
import { namespaceOf } from "../../host/mounts.ts";
import { programName } from "../../host/process-tree.ts";
import { RecoveryLineError } from "../../model/errors.ts";
import type { ByteString } from "./tree-entry.ts";

/** What is no file of its own, or what an image does hold: deleted files, memory files, /dev/zero; segments are looked at by themselves. */
const HELD = / \(deleted\)$|^\/memfd:|^\/SYSV|^\/dev\/zero$/;

export interface SharedFile {
  /** One of those that have mapped it. */
  readonly pid: number;
  readonly path: ByteString;
  /** Device and inode, as `maps` writes them: "08:01 123". */
  readonly key: string;
}

/** Each once, in order of finding. A process that has ended maps nothing. */
export function sharedFiles(pids: readonly number[]): SharedFile[] {
  const found = new Map<string, SharedFile>();
  for (const pid of pids)
    for (const [, key, path] of mapsOf(pid).matchAll(/^\S+ .w.s \S+ (\S+ \d+) +(\/.*)$/gm))
      if (!HELD.test(path!) && !found.has(path!)) found.set(path!, { pid, path: path!, key: key! });
  return [...found.values()];
}

/** Whether a process has mapped a file shared, to write or only to read. */
export function taskMapping(pid: number, key: string): boolean {
  return [...mapsOf(pid).matchAll(/^\S+ ...s \S+ (\S+ \d+) /gm)].some(([, other]) => other === key);
}

function mapsOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/maps`, "latin1");
  } catch {
    return "";
  }
}

/** CRIU knows segments of a namespace only as a whole. Throws RL_DRIVER for one of the namespace that everybody has. */
export function refuseHostSegments(pids: readonly number[]): void {
  for (const pid of pids) {
    const segment = /^\S+ \S+ \S+ \S+ \d+ +(\/SYSV\w+)/m.exec(mapsOf(pid))?.[1];
    if (segment === undefined || namespaceOf(pid, "ipc") !== namespaceOf("self", "ipc")) continue;
    throw new RecoveryLineError(
      "RL_DRIVER",
      `criu: process ${pid} (${programName(pid)}) uses the System V segment ${segment}, and no image holds one that others on this host could use`,
      "Start it with run --own-ipc: then its segments are its own.",
    );
  }
}
