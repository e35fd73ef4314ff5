/** Who else has to do with a tree: other trees that overlap it, and processes of others that have something below it open. */
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
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
      `${next.root} of ${next.process} is in ${tree.root} of ${tree.process}: two would put back one file`,
      "Give each process a folder of its own.",
    );
  }
}

function withSlash(path: string): string {
  return path.endsWith("/") ? path : `${path}/`;
}

export interface TreeUser {
  readonly pid: number;
  readonly name: string;
  readonly path: string;
}

/** Processes, but those in `own`, that have a file below `root` open, mapped or as their program, or stand in it; each once. */
export function foreignUsers(root: string, own: ReadonlySet<number>): TreeUser[] {
  const place = byteString(root);
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name) && !own.has(Number(name)))
    .flatMap((pid) => {
      const path = pathsOf(pid).find((one) => one === place || one.startsWith(withSlash(place)));
      return path === undefined ? [] : [{ pid: Number(pid), name: nameOf(pid), path: shown(path) }];
    });
}

function pathsOf(pid: string): ByteString[] {
  const links = ["cwd", "root", "exe", ...listed(`/proc/${pid}/fd`).map((fd) => `fd/${fd}`)];
  return [...links.map((link) => linkOf(`/proc/${pid}/${link}`)), ...mapped(pid)];
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

function mapped(pid: string): ByteString[] {
  try {
    return readFileSync(`/proc/${pid}/maps`, "latin1")
      .split("\n")
      .map((line) => /^\S+ \S+ \S+ \S+ \S+ +(\/.*)$/.exec(line)?.[1] ?? "");
  } catch {
    return [];
  }
}

function nameOf(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/comm`, "utf8").trim();
  } catch {
    return "?";
  }
}
