/** The anchor on disk: replaced as a whole, so a crash leaves the old or the new one. */
import { constants } from "node:fs";
import { open, rename } from "node:fs/promises";
import { type Anchor, decodeAnchor, encodeAnchor } from "../format/log-anchor.ts";
import { anchorPath, corrupt, isErrno, syncFolder } from "./log-paths.ts";

/** Bytes; an anchor of 65 536 segments is 4 MiB. */
const MAX_ANCHOR_BYTES = 8 * 1024 * 1024;

/** Durable on return. */
export async function writeAnchor(dir: string, anchor: Anchor): Promise<void> {
  const path = anchorPath(dir);
  const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC | constants.O_NOFOLLOW;
  const file = await open(`${path}.new`, flags, 0o600);
  try {
    await file.writeFile(encodeAnchor(anchor));
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(`${path}.new`, path);
  await syncFolder(dir);
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
