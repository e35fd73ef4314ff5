/** On which mounts files lie, and in which namespaces tasks are: what a path, a port or an id means depends on them. */
import { readdirSync, readFileSync, readlinkSync } from "node:fs";

/** As /proc/PID/mountinfo tells it. */
export interface Mount {
  readonly point: string;
  readonly type: string;
  readonly source: string;
  /** Which folder of the file system is seen there. */
  readonly root: string;
}

/** `encoding`: latin1 where paths are strings of bytes. */
export function mountsOf(pid: number | "self", encoding: "utf8" | "latin1" = "utf8"): Mount[] {
  return mountsIn(readFileSync(`/proc/${pid}/mountinfo`, encoding));
}

/** In the order in which they were mounted. */
export function mountsIn(mountinfo: string): Mount[] {
  return mountinfo.split("\n").flatMap((line) => {
    const [place = "", file = ""] = line.split(" - ");
    const [, , , root, point] = place.split(" ");
    const [type, source] = file.split(" ");
    if (root === undefined || point === undefined || type === undefined || source === undefined) return [];
    const [at, from] = [unescapeMount(point), unescapeMount(source)];
    return [{ point: at, type, source: from, root: unescapeMount(root) }];
  });
}

/** The kernel writes space, tab, newline and backslash as octal. */
function unescapeMount(path: string): string {
  return path.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
}

/** What was mounted last hides what was there before. */
export function mountUnder(mounts: readonly Mount[], path: string): Mount | undefined {
  return mounts.findLast(
    ({ point }) => path === point || path.startsWith(point === "/" ? point : `${point}/`),
  );
}

/** Kinds of namespaces that give names to more than files: a task that is brought back gets those of whoever does it. */
export const NAMESPACES = ["net", "ipc", "pid", "user"] as const;
export type NamespaceKind = (typeof NAMESPACES)[number];

/** Its name; undefined where it may not be asked, or nobody is there. */
export function namespaceOf(pid: number | "self", kind: NamespaceKind | "mnt"): string | undefined {
  try {
    return readlinkSync(`/proc/${pid}/ns/${kind}`);
  } catch {
    return undefined;
  }
}

/** One of the processes in it. */
export function processIn(kind: NamespaceKind, name: string): number | undefined {
  const pids = readdirSync("/proc").filter((pid) => /^\d+$/.test(pid));
  return pids.map(Number).find((pid) => namespaceOf(pid, kind) === name);
}
