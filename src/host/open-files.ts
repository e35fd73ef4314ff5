/**
 * Regular files that a frozen process has open for writing, and their sizes: what it appends after a checkpoint is undone by a
 * rollback like everything else. CRIU refuses to restore over a file whose size has changed.
 */
import { createHash } from "node:crypto";
import {
  closeSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  readSync,
  statSync,
  truncateSync,
} from "node:fs";
import { RecoveryLineError } from "../model/errors.ts";

export interface OpenFile {
  readonly path: string;
  readonly sizeBytes: number;
  /** The same file, not another one of that name. */
  readonly inode: number;
  readonly device: number;
  /** It can be written elsewhere than at its end. Absent: it can't, or an image of an older version. */
  readonly inPlace?: true;
  /** Of those the SHA-256 of what it held then; absent: it was too long to look (`HASHED_BYTES`). */
  readonly sha256?: string;
}

/** Read while the process stands still, of all its files together, at most. */
const HASHED_BYTES = 64 << 20;
const CHUNK_BYTES = 1 << 20;
const APPEND = 0o2000;

const ACCESS_MODE = 0o3;

/** Files without a name any more are left out: the image holds them itself. */
export function writtenFiles(pids: readonly number[]): OpenFile[] {
  const files = new Map<string, OpenFile>();
  for (const pid of pids) {
    for (const fd of readdirSync(`/proc/${pid}/fd`)) {
      const file = writtenFile(pid, fd);
      if (file !== undefined && files.get(file.path)?.inPlace !== true) files.set(file.path, file);
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
  if (!path.startsWith("/") || !stat.isFile() || path.endsWith(" (deleted)")) return undefined;
  const file = { path, sizeBytes: stat.size, inode: stat.ino, device: stat.dev };
  return (flags & APPEND) === 0 ? { ...file, inPlace: true } : file;
}

/** With what those held that can be written in place, as far as they are short enough. */
export function withContents(files: readonly OpenFile[]): OpenFile[] {
  let leftBytes = HASHED_BYTES;
  return files.map((file) => {
    if (file.inPlace !== true || file.sizeBytes > leftBytes) return file;
    leftBytes -= file.sizeBytes;
    return { ...file, sha256: hashOf(file) };
  });
}

/** True if what the file held then is not there any more; what is longer was appended. */
export function isChangedInside(file: OpenFile): boolean {
  return file.sha256 !== undefined && hashOf(file) !== file.sha256;
}

function hashOf({ path, sizeBytes }: OpenFile): string {
  const hash = createHash("sha256");
  const chunk = Buffer.alloc(Math.min(CHUNK_BYTES, sizeBytes));
  const file = openSync(path, "r");
  try {
    for (let at = 0; at < sizeBytes; ) {
      const read = readSync(file, chunk, 0, Math.min(chunk.length, sizeBytes - at), at);
      if (read === 0) break;
      hash.update(chunk.subarray(0, read));
      at += read;
    }
  } finally {
    closeSync(file);
  }
  return hash.digest("hex");
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
