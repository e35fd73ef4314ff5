/** The anchor on disk: replaced as a whole, so a crash leaves the old or the new one. */
import { closeSync, constants, fsync, openSync, open as openWithCallback, writeFileSync } from "node:fs";
import { open, rename } from "node:fs/promises";
import { promisify } from "node:util";
import { type Anchor, decodeAnchor, encodeAnchor } from "../format/log-anchor.ts";
import { anchorPath, corrupt, isErrno } from "./log-paths.ts";

/** Bytes; an anchor of 65 536 segments is 4 MiB. */
const MAX_ANCHOR_BYTES = 8 * 1024 * 1024;

// Looked up at each call: tests fail and watch the calls of node:fs.
const openDescriptor = (path: string, flags: number, mode: number): Promise<number> =>
  promisify(openWithCallback)(path, flags, mode);
const sync = (file: number): Promise<void> => promisify(fsync)(file);
const NEW_FILE = constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC | constants.O_NOFOLLOW;
const FOLDER = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW;

/**
 * Durable on return. It comes with every commit: what can wait for the disk is done by another thread, and only that, as each hand-over
 * costs more than the rest.
 */
export async function writeAnchor(dir: string, anchor: Anchor): Promise<void> {
  const path = anchorPath(dir);
  const file = await openDescriptor(`${path}.new`, NEW_FILE, 0o600);
  try {
    writeFileSync(file, encodeAnchor(anchor));
    await sync(file);
  } finally {
    closeSync(file);
  }
  await rename(`${path}.new`, path);
  const folder = openSync(dir, FOLDER);
  await sync(folder).finally(() => closeSync(folder));
}

/** The anchor, or undefined where there is none. Throws RL_CORRUPT_LOG for a damaged one. */
export async function readAnchor(dir: string): Promise<Anchor | undefined> {
  const file = await open(anchorPath(dir), constants.O_RDONLY | constants.O_NOFOLLOW).catch(
    (error: unknown) => {
      if (isErrno(error, "ENOENT")) return undefined;
      throw error;
    },
  );
  if (file === undefined) return undefined;
  try {
    const { size } = await file.stat();
    if (size > MAX_ANCHOR_BYTES) throw corrupt(dir, `an anchor of ${size} bytes`);
    const anchor = decodeAnchor(await file.readFile());
    if (typeof anchor === "string") throw corrupt(dir, `the anchor: ${anchor}`);
    return anchor;
  } finally {
    await file.close();
  }
}
