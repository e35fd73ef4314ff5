/**
 * What a job of Open MPI keeps below `<TMPDIR>/ompi.HOST.USER/pid.N`: mpirun removes all of it as soon as one of its ranks dies, and no image
 * is brought back without. So it is part of the state of the process that mpirun is in, like what is mapped.
 */
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { type ByteString, below } from "./tree-entry.ts";
import { walkTree } from "./walk-tree.ts";

const SESSION = /^(?<root>\/.*\/ompi\.[^/]+\/pid\.(?<pid>\d+))\//;
/** Sockets come back with their owners; anything else is none of Open MPI's. */
const KEPT = new Set(["file", "folder", "fifo"]);

/** Folders before what is in them. A process that has ended has none. */
export function sessionFiles(pids: readonly number[]): ByteString[] {
  const own = new Set(pids);
  const roots = new Set<ByteString>();
  for (const path of pids.flatMap(pathsOf)) {
    const { root, pid } = SESSION.exec(path)?.groups ?? {};
    if (root !== undefined && own.has(Number(pid))) roots.add(root);
  }
  return [...roots].flatMap((root) =>
    walkTree(root)
      .entries.filter(({ kind }) => KEPT.has(kind))
      .map(({ path }) => below(root, path)),
  );
}

/** Of what it has open or mapped. */
function pathsOf(pid: number): ByteString[] {
  try {
    const maps = readFileSync(`/proc/${pid}/maps`, "latin1");
    const mapped = [...maps.matchAll(/^(?:\S+ +){5}(\/.*)$/gm)].map(([, path]) => path!);
    return [...mapped, ...readdirSync(`/proc/${pid}/fd`).flatMap((descriptor) => linkOf(pid, descriptor))];
  } catch {
    return []; // it has ended
  }
}

function linkOf(pid: number, descriptor: string): ByteString[] {
  try {
    return [readlinkSync(`/proc/${pid}/fd/${descriptor}`, { encoding: "latin1" })];
  } catch {
    return []; // it was closed
  }
}
