/**
 * Files that a process has mapped shared and writable, or keeps for its session (session-files.ts), outside of its data trees: PostgreSQL's in /dev/shm, Prometheus' queries.active, a
 * JVM's hsperfdata. CRIU's image holds the mapping and not what is in the file, so the file is copied into the image while the process
 * stands still, and put back before it is restored. Where anybody else maps it, it is no part of this process alone, and refused.
 *
 *     <image's files>/mapped-<n>       the contents of the n-th file
 *     <home>/<app>/restart/replaced/<n>   what a restart overwrites, until it has ended well
 *     <home>/<app>/replaced-<ms>/<n>-<name>   the same, where it was to be kept
 */
import {
  closeSync,
  constants,
  existsSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  renameSync,
  rmdirSync,
  rmSync,
} from "node:fs";
import { basename, dirname, join } from "node:path";
import { programName } from "../../host/process-tree.ts";
import { RecoveryLineError } from "../../model/errors.ts";
import { native } from "../../native/binding.ts";
import { setFacts } from "./build-tree.ts";
import { copyContent, openToRead, restoreContent } from "./copy-content.ts";
import { DATA_LIMIT_BYTES } from "./save-tree.ts";
import { type SharedFile, sharedFiles, taskMapping } from "./shared-maps.ts";
import { type ByteString, byteString, bytesOf, shown, type TreeEntry } from "./tree-entry.ts";
import { entryOf, statOf } from "./walk-tree.ts";

/** One file, as an image's notes name it. */
export interface MappedFile {
  readonly path: ByteString;
  /** Of its contents in the image. */
  readonly number: number;
  readonly entry: TreeEntry;
  /** The folders above it, outermost first: made anew where they are gone. */
  readonly above: readonly TreeEntry[];
}

/** One that a restart puts back, as its journal names it. */
export interface ReplacedFile {
  readonly path: ByteString;
  readonly number: number;
  /** As it was before; absent: it was gone. */
  readonly before?: MappedFile;
  /** Folders that were not there, outermost first. */
  readonly madeFolders: readonly ByteString[];
}

const REPLACED = "replaced";

/** Saves them while the process stands still. Throws RL_DRIVER, RL_REFUSED where one can't be put back, or they are too long together. */
export function saveMapped(files: readonly Pick<SharedFile, "path">[], folder: string): MappedFile[] {
  let leftBytes = DATA_LIMIT_BYTES;
  return files.map((file, number) =>
    saveOne(file.path, number, join(folder, nameOf(number)), (bytes) => {
      leftBytes -= bytes;
      if (leftBytes < 0) throw tooLong(file.path);
    }),
  );
}

function nameOf(number: number): string {
  return `mapped-${number}`;
}

function tooLong(path: ByteString): RecoveryLineError {
  return new RecoveryLineError(
    "RL_REFUSED",
    `the files that the process has mapped shared and writable, ${shown(path)} among them, hold more than ${DATA_LIMIT_BYTES} bytes`,
    "Name the folder it lies in with --data: then only what has changed is copied while the process stands still.",
  );
}

function saveOne(path: ByteString, number: number, to: string, copied: (bytes: number) => void): MappedFile {
  const entry = entryOf(path, "", statOf(path)!)!;
  if (entry.kind !== "file") return { path, number, above: foldersAbove(path), entry };
  const file = openToRead(path);
  try {
    const content = copyContent(file, byteString(to), copied);
    const source = { inode: "", ctime: "", begin: "", mapped: true };
    return {
      path,
      number,
      above: foldersAbove(path),
      entry: { ...entry, content: { ...content, number, source } },
    };
  } finally {
    closeSync(file);
  }
}

function foldersAbove(path: ByteString): TreeEntry[] {
  const folder = dirname(path);
  if (folder === "/") return [];
  const entry = entryOf("/", folder.slice(1), statOf(folder)!)!;
  return [...foldersAbove(folder), entry];
}

// ---- who else maps them

/** Refuses what can't be saved. `own`: all tasks of the process. Throws RL_DRIVER, RL_REFUSED, naming process, file and the other one. */
export function refuseForeignMappers(files: readonly SharedFile[], own: readonly number[]): void {
  const mine = new Set(own);
  for (const file of files) {
    refuseUnreachable(file);
    const other = mapperOf(file, mine);
    if (other === undefined) continue;
    throw new RecoveryLineError(
      "RL_REFUSED",
      `process ${file.pid} (${programName(file.pid)}) has mapped ${shown(file.path)} shared and writable, and so has process ${other} (${programName(other)}), which is no part of it`,
      "An image of one would hold half of what uses that memory. Record both under one name, or end the other.",
    );
  }
}

/** What its path names must be what it has mapped, and be a file with that one name: else it could not be put back. */
function refuseUnreachable({ pid, path, key }: SharedFile): void {
  const stat = lstatSync(bytesOf(path), { throwIfNoEntry: false });
  const isOurs = stat?.isFile() === true && key.endsWith(` ${stat.ino}`);
  if (isOurs && stat.nlink === 1) return;
  const why = isOurs
    ? "it has another name as well"
    : stat !== undefined && !stat.isFile()
      ? "it is no regular file"
      : "another file has that path here";
  throw new RecoveryLineError(
    "RL_DRIVER",
    `criu: process ${pid} (${programName(pid)}) has mapped ${shown(path)} shared and writable, and it can't be put back: ${why}`,
    "Name the folder it lies in with --data, or have the program use private or anonymous memory, or a hook.",
  );
}

function mapperOf({ key }: Pick<SharedFile, "key">, own: ReadonlySet<number>): number | undefined {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name) && !own.has(Number(name)))
    .map(Number)
    .find((pid) => taskMapping(pid, key));
}

/** Who, of none of `own`, has the file of that path mapped shared and writable; undefined where nobody has, or it is gone. */
export function strangerAt(path: ByteString, own: ReadonlySet<number>): number | undefined {
  const stat = statOf(path);
  if (stat === undefined) return undefined;
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name) && !own.has(Number(name)))
    .map(Number)
    .find((pid) =>
      sharedFiles([pid]).some((file) => file.path === path && file.key.endsWith(` ${stat.ino}`)),
    );
}

/** Keeps what is there now, before anything is touched; nothing runs on it any more. `to`: the restart's folder. */
export function stageMapped(files: readonly MappedFile[], to: string): ReplacedFile[] {
  const folder = join(to, REPLACED);
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  return files.filter(isWritten).map(({ path, above }, number) => {
    const before = statOf(path)?.isFile()
      ? { before: saveOne(path, number, join(folder, nameOf(number)), () => undefined) }
      : {};
    const gone = above.map((entry) => `/${entry.path}`).filter((one) => statOf(one) === undefined);
    return { path, number, ...before, madeFolders: gone };
  });
}

/** What is no file is only made where it is gone. */
function isWritten({ path, entry }: MappedFile): boolean {
  return entry.kind === "file" || statOf(path) === undefined;
}

/** `folder`: the image's files. Again, it does the same. */
export function putMapped(files: readonly MappedFile[], folder: string): void {
  for (const file of files) {
    for (const entry of file.above) makeFolder(`/${entry.path}`, entry);
    if (file.entry.kind === "file") put(file, folder);
    else if (file.entry.kind === "folder") makeFolder(file.path, file.entry);
    else makeFifo(file);
  }
}

function makeFolder(path: ByteString, entry: TreeEntry): void {
  if (statOf(path) !== undefined) return;
  mkdirSync(bytesOf(path), 0o700);
  setFacts(path, entry);
}

function makeFifo({ path, entry }: MappedFile): void {
  if (statOf(path) !== undefined) return;
  native().makeNode(bytesOf(path), constants.S_IFIFO | 0o600, 0);
  setFacts(path, entry);
}

/** Whole or not at all. */
function put({ path, number, entry }: MappedFile, folder: string): void {
  const fresh = join(dirname(path), ".recovery-line-mapped");
  rmSync(bytesOf(fresh), { force: true });
  const stored = openSync(join(folder, nameOf(number)), "r");
  try {
    restoreContent(stored, fresh, entry.content!);
  } finally {
    closeSync(stored);
  }
  setFacts(fresh, entry);
  renameSync(bytesOf(fresh), bytesOf(path));
}

/**
 * Once all is put back: what was overwritten goes on lying in a folder of its own below `to`, with the files' own names. `from`: the
 * restart's folder. Undefined: nothing was, or an earlier call has done it.
 */
export function keepReplaced(files: readonly ReplacedFile[], from: string, to: string): string | undefined {
  const folder = join(from, REPLACED);
  const replaced = files.filter(({ before }) => before !== undefined);
  if (replaced.length === 0 || !existsSync(folder)) return undefined;
  for (const { path, number } of replaced) {
    const stored = join(folder, nameOf(number));
    if (existsSync(stored))
      renameSync(stored, bytesOf(join(byteString(folder), `${number}-${basename(path)}`)));
  }
  const kept = join(to, `${REPLACED}-${Date.now()}`);
  renameSync(folder, kept);
  return kept;
}

/** All as it was before; again, it does nothing more. `from`: the restart's folder. */
export function takeMappedBack(files: readonly ReplacedFile[], from: string): void {
  for (const { path, before, madeFolders } of [...files].reverse()) {
    if (before !== undefined) put(before, join(from, REPLACED));
    else if (statOf(path)?.isDirectory()) removeIfEmpty(path);
    else rmSync(bytesOf(path), { force: true });
    for (const folder of [...madeFolders].reverse()) removeIfEmpty(folder);
  }
}

function removeIfEmpty(folder: ByteString): void {
  try {
    rmdirSync(bytesOf(folder));
  } catch {} // somebody has put something there, or it was never made
}
