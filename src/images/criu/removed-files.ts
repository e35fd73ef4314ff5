/**
 * Files whose names are gone and that are still open: CRIU gives them their names back for a moment as it restores them. A restore that fails half way
 * leaves these, and the next one could not make them any more ("Can't create even fake link"). Open MPI's jobs have such a file in /dev/shm.
 */
import { existsSync, readdirSync, readlinkSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { rangesOfDeleted } from "./criu-refusals.ts";

const GONE = " (deleted)";
/** Where the name has been taken meanwhile, CRIU adds this. */
const SECOND = ".cr_link";

/** Their names, as the processes knew them. */
export function removedFiles(pids: readonly number[]): string[] {
  const names = new Set<string>();
  for (const pid of pids)
    for (const place of [...placesIn(`/proc/${pid}/fd`), ...mappingsOf(pid)]) {
      const name = removedAt(place);
      if (name !== undefined) names.add(name);
    }
  return [...names].sort();
}

function placesIn(folder: string): string[] {
  try {
    return readdirSync(folder).map((name) => join(folder, name));
  } catch {
    return []; // it has ended
  }
}

/** By the one list of them: a program may have ten thousands, and stands still. */
function mappingsOf(pid: number): string[] {
  return rangesOfDeleted(pid).map((range) => `/proc/${pid}/map_files/${range}`);
}

function removedAt(place: string): string | undefined {
  try {
    const link = readlinkSync(place);
    if (!link.startsWith("/") || !link.endsWith(GONE) || link.startsWith("/memfd:")) return undefined;
    const stat = statSync(place);
    return stat.isFile() && stat.nlink === 0 ? link.slice(0, -GONE.length) : undefined;
  } catch {
    return undefined; // closed meanwhile
  }
}

/** What a restore that fails leaves of them goes; names that others have meanwhile stay. */
export async function withoutLeftNames<T>(names: readonly string[], restore: () => Promise<T>): Promise<T> {
  for (const name of names) remove(name + SECOND);
  const others = new Set(names.filter((name) => existsSync(name)));
  try {
    return await restore();
  } catch (error) {
    for (const name of names) {
      if (!others.has(name)) remove(name);
      remove(name + SECOND);
    }
    throw error;
  }
}

function remove(name: string): void {
  try {
    rmSync(name, { force: true });
  } catch {} // it can't be: what the restore says counts
}
