/**
 * Regular files that a frozen process has open for writing, and their sizes: what it appends after a checkpoint is undone by a
 * rollback like everything else. CRIU refuses to restore over a file whose size has changed.
 */
import { readdirSync, readFileSync, readlinkSync, statSync, truncateSync } from "node:fs";
import { RecoveryLineError } from "../model/errors.ts";

export interface OpenFile {
  readonly path: string;
  readonly sizeBytes: number;
  /** The same file, not another one of that name. */
  readonly inode: number;
  readonly device: number;
}

const ACCESS_MODE = 0o3;

/** Files without a name any more are left out: the image holds them itself. */
export function writtenFiles(pids: readonly number[]): OpenFile[] {
  const files = new Map<string, OpenFile>();
  for (const pid of pids) {
    for (const fd of readdirSync(`/proc/${pid}/fd`)) {
      const file = writtenFile(pid, fd);
      if (file !== undefined) files.set(file.path, file);
    }
  }
  return [...files.values()];
}

function writtenFile(pid: number, fd: string): OpenFile | undefined {
  const flags = Number.parseInt(
    /^flags:\s*(\d+)/m.exec(readFileSync(`/proc/${pid}/fdinfo/${fd}`, "utf8"))?.[1] ?? "0",
    8,
  );
  if ((flags & ACCESS_MODE) === 0) return undefined;
  const path = readlinkSync(`/proc/${pid}/fd/${fd}`);
  const stat = statSync(`/proc/${pid}/fd/${fd}`);
  if (!path.startsWith("/") || !stat.isFile() || stat.nlink === 0) return undefined;
  return { path, sizeBytes: stat.size, inode: stat.ino, device: stat.dev };
}

/** Cuts files back that have grown since. Throws RL_REFUSED, before it changes any, where one is gone, replaced or shorter. */
export function rollBackFiles(files: readonly OpenFile[]): void {
  const grown = files.filter((file) => {
    const stat = statSync(file.path, { throwIfNoEntry: false });
    if (
      stat === undefined ||
      stat.ino !== file.inode ||
      stat.dev !== file.device ||
      stat.size < file.sizeBytes
    )
      throw new RecoveryLineError(
        "RL_REFUSED",
        `${file.path} is not the file any more that the process had open: its contents can't be rolled back`,
        "Use a checkpoint that is newer than the change, or put the file back.",
      );
    return stat.size > file.sizeBytes;
  });
  for (const { path, sizeBytes } of grown) truncateSync(path, sizeBytes);
}
