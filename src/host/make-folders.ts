/** Folders that end in being made or refused: Node's recursive mkdir never returns where a folder takes none (/proc, /sys/kernel). */
import { mkdirSync, statSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { RecoveryLineError } from "../model/errors.ts";

/** Makes `path` and what is missing above it; what is there stays as it is. Throws RL_USAGE where nothing can be made, and what mkdir throws. */
export function makeFolders(path: string, mode = 0o700): void {
  const missing: string[] = [];
  let at = resolve(path);
  for (; !isThere(at); at = dirname(at)) missing.push(at);
  if (missing.length === 0) mkdirOver(at, mode);
  for (const folder of missing.reverse()) mkdirOver(folder, mode);
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

function mkdirOver(folder: string, mode: number): void {
  try {
    mkdirSync(folder, { mode });
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    if (code === "EEXIST" && statSync(folder).isDirectory()) return;
    if (code !== "ENOENT") throw cause;
    throw new RecoveryLineError(
      "RL_USAGE",
      `no folder can be made in ${dirname(folder)}, so ${folder} can't be used`,
      "Name a directory on a disk.",
      cause,
    );
  }
}
