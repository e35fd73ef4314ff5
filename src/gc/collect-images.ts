import { lstat, readdir, readFile, rename, rm, unlink } from "node:fs/promises";
import { join } from "node:path";
import { isFullDisk } from "../host/full-disk.ts";
import { replaceFile, syncFolder } from "../host/replace-file.ts";
import { identityOf, type SettledImage, whileNoImageIsTaken } from "../images/image-store.ts";
import { RecoveryLineError } from "../model/errors.ts";
import type { Evidence } from "../model/evidence-layout.ts";
import { PATH_NAME } from "../model/names.ts";
import { checkpointKey } from "./gc.ts";

/** One image, by the names of its checkpoint. */
export interface ImageName {
  readonly process: string;
  readonly checkpoint: number;
}

export interface CollectedImage extends ImageName {
  /** Of one that no checkpoint in effect has (`SettledImage`): another that has got its number since stays. */
  readonly identity?: string;
  /** What its removal frees, if all images that share files with it (unchanged data) are removed as well. */
  readonly sizeBytes: number;
}

interface Journal {
  readonly format: 1;
  readonly application: string;
  readonly images: readonly ImageName[];
}

const REMOVED = ".gc-";

/** The images among the given checkpoints that the log directory of an application holds. Links and files are no images. */
export async function storedImages(
  dir: string,
  checkpoints: readonly ImageName[],
): Promise<CollectedImage[]> {
  const found: CollectedImage[] = [];
  for (const { process, checkpoint } of checkpoints) {
    if (!PATH_NAME.test(process)) continue;
    const folder = join(dir, "images", process, String(checkpoint));
    if (await isFolder(folder)) found.push({ process, checkpoint, sizeBytes: await sizeOf(folder) });
  }
  return found;
}

/**
 * Of the settled images those of no checkpoint in effect: a rollback undid it, or its checkpoint died before it was recorded. A process that
 * the evidence does not know keeps all. It is of logs that were read after the images were looked at.
 */
export async function leftoverImages(
  dir: string,
  settled: readonly SettledImage[],
  { processes, segments: { start, index } }: Evidence,
): Promise<CollectedImage[]> {
  const inEffect = new Map(
    processes.map((process, number) => [process, new Set(index.subarray(start[number], start[number + 1]))]),
  );
  const left = settled.filter(
    ({ process, checkpoint }) => inEffect.has(process) && !inEffect.get(process)!.has(checkpoint),
  );
  const identities = new Map(left.map((one) => [checkpointKey(one), one.identity]));
  return (await storedImages(dir, left)).map((image) => ({
    ...image,
    identity: identities.get(checkpointKey(image))!,
  }));
}

/**
 * Ends what a crash cut off; images that it had not renamed yet stay. Returns how many it removed. The caller holds the lock. Whatever
 * bears such a name is garbage: on a full disk no journal may have told of it.
 */
export async function finishRemoval(dir: string): Promise<number> {
  const journal = await readJournal(dir);
  let removed = 0;
  const images = join(dir, "images");
  for (const process of await readdir(images).catch(() => []))
    for (const name of PATH_NAME.test(process) ? await readdir(join(images, process)).catch(() => []) : [])
      if (name.startsWith(REMOVED) && (await isFolder(join(images, process, name)))) {
        await rm(join(images, process, name), { recursive: true });
        removed += 1;
      }
  if (journal !== undefined) await dropJournal(dir);
  return removed;
}

/** False where the disk was full. */
export async function unlessFull(work: () => Promise<void>): Promise<boolean> {
  try {
    await work();
    return true;
  } catch (error) {
    if (!isFullDisk(error)) throw error;
    return false;
  }
}

/** Removes these images; on a full disk one by one, as there may be no room for the journal. The caller holds the lock and has finished what came before. */
export async function removeImages(
  dir: string,
  application: string,
  images: readonly CollectedImage[],
): Promise<void> {
  if (images.length === 0) return;
  const journal: Journal = {
    format: 1,
    application,
    images: images.map(({ process, checkpoint }) => ({ process, checkpoint })),
  };
  const noted = await unlessFull(() => writeJournal(dir, journal));
  for (const image of images) {
    await setAside(join(dir, "images"), image);
    if (!noted) await removeRenamed(dir, image);
  }
  for (const process of new Set(images.map((image) => image.process)))
    await syncFolder(join(dir, "images", process));
  for (const image of images) await removeRenamed(dir, image);
  if (noted) await dropJournal(dir);
}

async function setAside(images: string, { process, checkpoint, identity }: CollectedImage): Promise<void> {
  const [from, to] = [String(checkpoint), `${REMOVED}${checkpoint}`].map((name) =>
    join(images, process, name),
  );
  const move = async (): Promise<void> => {
    if (identity !== undefined && (await identityOf(from!)) !== identity) return;
    await rm(to!, { recursive: true, force: true });
    await rename(from!, to!);
  };
  if (identity === undefined) await move();
  else await whileNoImageIsTaken(images, process, move);
}

async function removeRenamed(dir: string, { process, checkpoint }: ImageName): Promise<boolean> {
  const folder = join(dir, "images", process, `${REMOVED}${checkpoint}`);
  if (!(await isFolder(folder))) return false;
  await rm(folder, { recursive: true });
  return true;
}

const journalPath = (dir: string): string => join(dir, "gc", "journal.json");

async function writeJournal(dir: string, journal: Journal): Promise<void> {
  await replaceFile(journalPath(dir), `${JSON.stringify(journal)}\n`, `${journalPath(dir)}.partial`);
}

/** Renamed into place whole, so one that does not parse was damaged by somebody else: nothing is removed on its word. */
async function readJournal(dir: string): Promise<Journal | undefined> {
  const text = await readFile(journalPath(dir), "utf8").catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return undefined;
    throw error;
  });
  if (text === undefined) return undefined;
  const journal = parsed(text);
  if (journal !== undefined) return journal;
  throw new RecoveryLineError(
    "RL_CORRUPT_LOG",
    `${journalPath(dir)} is no journal of a collection`,
    "Look at images/*/.gc-* by hand (they are garbage), remove the journal, and run gc again.",
  );
}

function parsed(text: string): Journal | undefined {
  try {
    const journal = JSON.parse(text) as Partial<Journal> | null;
    const whole =
      journal?.format === 1 &&
      Array.isArray(journal.images) &&
      journal.images.every(
        (image) =>
          PATH_NAME.test(image?.process) && Number.isSafeInteger(image.checkpoint) && image.checkpoint > 0,
      );
    return whole ? (journal as Journal) : undefined;
  } catch {
    return undefined;
  }
}

async function dropJournal(dir: string): Promise<void> {
  await unlink(journalPath(dir));
  await syncFolder(join(dir, "gc"));
}

/** True for a folder that is no link. */
export async function isFolder(path: string): Promise<boolean> {
  const stat = await lstat(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT" || error.code === "ENOTDIR") return undefined;
    throw error;
  });
  return stat?.isDirectory() === true;
}

async function sizeOf(folder: string): Promise<number> {
  let size = 0;
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true }))
    if (entry.isFile()) {
      const stat = await lstat(join(entry.parentPath, entry.name));
      size += Math.min(stat.size, stat.blocks * 512) / stat.nlink; // the rest are holes, and parts of other images
    }
  return Math.ceil(size);
}
