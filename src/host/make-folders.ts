/** Folders that end in being made or refused: Node's recursive mkdir never returns where a folder takes none (/proc, /sys/kernel). */
import { mkdirSync, rmdirSync, statSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { RecoveryLineError } from "../model/errors.ts";

/**
 * Makes `path` and what is missing above it; what is there stays as it is. Returns what it has made, the upper ones first. Throws RL_USAGE
 * where nothing can be made, and what mkdir throws; then nothing is left of it.
 */
export function makeFolders(path: string, mode = 0o700): string[] {
  const missing: string[] = [];
  let at = resolve(path);
  for (; !isThere(at); at = dirname(at)) missing.push(at);
  if (missing.length === 0) mkdirOver(at, mode);
  const made: string[] = [];
  try {
    for (const folder of missing.reverse()) if (mkdirOver(folder, mode)) made.push(folder);
  } catch (error) {
    removeFolders(made);
    throw error;
  }
  return made;
}

/** What `makeFolders` has made, where nobody has put anything into it. */
export function removeFolders(made: readonly string[]): void {
  for (const folder of made.toReversed())
    try {
      rmdirSync(folder);
    } catch {
      return;
    }
}

function isThere(path: string): boolean {
  try {
    return statSync(path) !== undefined;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ENOTDIR") return false;
    throw error;
  }
}

/** False: somebody else has made it. */
function mkdirOver(folder: string, mode: number): boolean {
  try {
    mkdirSync(folder, { mode });
    return true;
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    if (code === "EEXIST" && statSync(folder).isDirectory()) return false;
    if (code !== "ENOENT") throw cause;
    throw new RecoveryLineError(
      "RL_USAGE",
      `no folder can be made in ${dirname(folder)}, so ${folder} can't be used`,
      "Name a directory on a disk.",
      cause,
    );
  }
}
