/** Who else has to do with a tree: other trees that overlap it, and processes of others that have something below it open. */
import { lstatSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { programName } from "../../host/process-tree.ts";
import { RecoveryLineError } from "../../model/errors.ts";
import { type ByteString, byteString, shown } from "./tree-entry.ts";

export interface NamedTree {
  readonly process: string;
  /** Absolute, without symbolic links in it. */
  readonly root: string;
}

/** Throws RL_REFUSED for the first two of which one holds the other, or that are one. */
export function refuseOverlaps(trees: readonly NamedTree[]): void {
  const sorted = [...trees].sort((a, b) => (withSlash(a.root) < withSlash(b.root) ? -1 : 1));
  for (const [at, tree] of sorted.entries()) {
    const next = sorted[at + 1];
    if (next === undefined || !withSlash(next.root).startsWith(withSlash(tree.root))) continue;
    throw new RecoveryLineError(
      "RL_REFUSED",
      `${next.root} of ${next.process} lies in ${tree.root} of ${tree.process}: two processes would put back the same file`,
      "Give each process a folder of its own.",
    );
  }
}

function withSlash(path: string): string {
  return path.endsWith("/") ? path : `${path}/`;
}

/** One of the roots, or below one. */
export function isBelowAny(roots: readonly string[], path: string): boolean {
  return roots.some((root) => withSlash(path).startsWith(withSlash(root)));
}

export interface TreeUser {
  readonly pid: number;
  readonly name: string;
  /** One of what it has open there, first of all what it may write. */
  readonly path: string;
  readonly writes: boolean;
}

type Use = Pick<TreeUser, "path" | "writes">;

/** Processes, but those in `own`, that have a file below `root` open, mapped or as their program, or stand in it; each once. */
export function foreignUsers(root: string, own: ReadonlySet<number>): TreeUser[] {
  const place = byteString(root);
  const isBelow = ({ path }: Use): boolean => path === place || path.startsWith(withSlash(place));
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name) && !own.has(Number(name)))
    .flatMap((pid) => {
      const uses = usesOf(pid).filter(isBelow);
      const use = uses.find(({ writes }) => writes) ?? uses[0];
      return use === undefined
        ? []
        : [{ ...use, pid: Number(pid), name: programName(Number(pid)), path: shown(use.path) }];
    });
}

function usesOf(pid: string): Use[] {
  const links = ["cwd", "root", "exe"].map((link) => ({
    path: linkOf(`/proc/${pid}/${link}`),
    writes: false,
  }));
  const files = listed(`/proc/${pid}/fd`).map((fd) => ({
    path: linkOf(`/proc/${pid}/fd/${fd}`),
    writes: isWritable(pid, fd),
  }));
  return [...links, ...files, ...mapped(pid)];
}

function listed(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return []; // it has ended
  }
}

function linkOf(path: string): ByteString {
  try {
    return readlinkSync(path, { encoding: "latin1" });
  } catch {
    return "";
  }
}

const OWNER_WRITES = 0o200;

/** The kernel shows by the link's mode how the file was opened. */
function isWritable(pid: string, fd: string): boolean {
  return ((lstatSync(`/proc/${pid}/fd/${fd}`, { throwIfNoEntry: false })?.mode ?? 0) & OWNER_WRITES) !== 0;
}

function mapped(pid: string): Use[] {
  try {
    return readFileSync(`/proc/${pid}/maps`, "latin1")
      .split("\n")
      .flatMap((line) => {
        const [, rights = "", path] = /^\S+ (\S+) \S+ \S+ \S+ +(\/.*)$/.exec(line) ?? [];
        return path === undefined
          ? []
          : [{ path, writes: rights.startsWith("w", 1) && rights.endsWith("s") }];
      });
  } catch {
    return [];
  }
}

/** Throws RL_REFUSED, naming who may write below one of the roots and is none of `own`. */
export function refuseForeignWriters(roots: readonly string[], own: ReadonlySet<number>): void {
  for (const root of roots) {
    const user = foreignUsers(root, own).find(({ writes }) => writes);
    if (user === undefined) continue;
    throw new RecoveryLineError(
      "RL_REFUSED",
      `process ${user.pid} (${user.name}) has ${user.path} open for writing, and is no part of the process whose data ${root} is`,
      "What it writes there would be mixed with what is put back. End it, or record both under one name.",
    );
  }
}
