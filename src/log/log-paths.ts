import { lstat, readdir } from "node:fs/promises";
import { join } from "node:path";
import { makeFolders } from "../host/make-folders.ts";
import { RecoveryLineError } from "../model/errors.ts";

export const anchorPath = (dir: string): string => join(dir, "anchor");
export const lockPath = (dir: string): string => join(dir, "lock");
export const segmentsPath = (dir: string): string => join(dir, "segments");

const SEGMENT_DIGITS = 6;

export function segmentPath(dir: string, number: number): string {
  return join(segmentsPath(dir), String(number).padStart(SEGMENT_DIGITS, "0"));
}

/** True for errors of the file system with this code. */
export function isErrno(error: unknown, code: string): boolean {
  return (error as { code?: unknown }).code === code;
}

function refused(path: string, why: string, cause?: unknown): RecoveryLineError {
  return new RecoveryLineError(
    "RL_NO_RIGHTS",
    `${path} ${why}`,
    "A log belongs to the user who reads and writes it, and holds no links. Copy it, or change its owner, if you trust it.",
    cause,
  );
}

/**
 * True if `path` is a folder of this user that nobody else can write to; false if there is nothing.
 * Throws RL_NO_RIGHTS for anything else.
 */
export async function checkFolder(path: string): Promise<boolean> {
  const stat = await lstat(path).catch((error: unknown) => {
    if (isErrno(error, "ENOENT")) return undefined;
    throw error;
  });
  if (stat === undefined) return false;
  if (stat.isSymbolicLink()) throw refused(path, "is a symbolic link");
  if (!stat.isDirectory()) throw refused(path, "is no folder");
  if (stat.uid !== process.geteuid!()) throw refused(path, `belongs to user ${stat.uid}`);
  if ((stat.mode & 0o022) !== 0) throw refused(path, "can be written by other users");
  return true;
}

/** A segment's folder, and that everything in it is a plain file. */
export async function checkSegment(path: string): Promise<boolean> {
  if (!(await checkFolder(path))) return false;
  for (const entry of await readdir(path, { withFileTypes: true }))
    if (!entry.isFile()) throw refused(join(path, entry.name), "is no plain file");
  return true;
}

/** Makes a folder for this user alone. */
export async function makeFolder(path: string): Promise<void> {
  makeFolders(path);
}

/** Numbers of the segments that have a folder, rising; nothing where there is no such folder. */
export async function segmentNumbers(dir: string): Promise<number[]> {
  if (!(await checkFolder(segmentsPath(dir)))) return [];
  const names = await readdir(segmentsPath(dir));
  return names
    .filter((name) => /^\d{6,10}$/.test(name))
    .map(Number)
    .sort((a, b) => a - b);
}

export function corrupt(dir: string, why: string, cause?: unknown): RecoveryLineError {
  return new RecoveryLineError(
    "RL_CORRUPT_LOG",
    `the log in ${dir} is damaged: ${why}`,
    "`recovery-line verify` lists the damaged places. Restore the log from a copy, or compute without this node.",
    cause,
  );
}

/** Codes of the file system that mean: not yours, or a link where none may be. */
const NO_RIGHTS = new Set(["EACCES", "EPERM", "ELOOP"]);

/** An error of the file system as ours; our own errors and bugs stay as they are. */
export function diskError(dir: string, error: unknown): unknown {
  const { code, message } = error as { code?: unknown; message?: string };
  if (error instanceof RecoveryLineError || typeof code !== "string" || !/^E[A-Z0-9]+$/.test(code))
    return error;
  if (NO_RIGHTS.has(code)) return refused(dir, `cannot be used: ${message}`, error);
  return new RecoveryLineError(
    "RL_LOG_WRITE",
    `the log in ${dir} cannot be used: ${message}`,
    "Nothing acknowledged is lost. Free space or repair the disk.",
    error,
  );
}
