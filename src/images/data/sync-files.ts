/** Onto the disk: few files one by one, many with all else of their file system. */
import { execFile } from "node:child_process";
import { open } from "node:fs/promises";
import { promisify } from "node:util";

/** Files that are synced by themselves, count; and at one time. */
const BY_THEMSELVES = 256;
const TOGETHER = 16;

/** The whole file system of a path. */
export async function syncAll(path: string): Promise<void> {
  await promisify(execFile)("sync", ["-f", path]);
}

/** Files or folders of one file system. */
export async function syncEach(paths: readonly string[]): Promise<void> {
  if (paths.length > BY_THEMSELVES) return await syncAll(paths[0]!);
  for (let from = 0; from < paths.length; from += TOGETHER)
    await Promise.all(paths.slice(from, from + TOGETHER).map(syncOne));
}

async function syncOne(path: string): Promise<void> {
  const file = await open(path, "r");
  await file.sync().finally(() => file.close());
}
