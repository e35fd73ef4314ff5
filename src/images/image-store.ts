/**
 * Images on disk: `<home>/<app>/images/<process>/<index>/`, a `manifest.json`, the driver's files in `files/`, and in `data/<n>/` the
 * process's directory trees as they were then (data-tree/), whose checksums stand in the manifest.
 *
 * An image is there as a whole or not at all: it grows under a hidden name, every file is synced, then it is renamed.
 * The chain of trust: the log's checkpoint event names the manifest's SHA-256, the manifest that of every file; an image
 * with a wrong, missing or additional file is refused (CRIU itself restores damaged images into corrupt memory).
 */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { lstat, mkdir, open, readdir, readFile, rename, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { lockedBy } from "../host/wait-for-lock.ts";
import type { CutDetail } from "../model/collector-answers.ts";
import { hasCode, RecoveryLineError } from "../model/errors.ts";
import { PATH_NAME } from "../model/names.ts";
import { call, native } from "../native/binding.ts";
import { openTree, type StoredTree, verifyTree } from "./data/stored-tree.ts";
import type { DriverNotes } from "./driver.ts";

const MANIFEST = "manifest.json";
const FILES = "files";
const PARTIAL = ".partial-";
const IMAGE_NAME = /^[1-9]\d*$/;
export const MANIFEST_FORMAT = 1;
const CHUNK_BYTES = 1 << 20;
/** Longest wait for who only looks, in ms. */
const LOOK_MS = 500;
/** Files of one image that are hashed, and synced, at one time, count. */
const FILES_TOGETHER = 16;
/** A manifest of 100 000 files. */
const MAX_MANIFEST_BYTES = 32 * 1024 * 1024;

export interface ImageFile {
  /** Relative to `files/`. */
  readonly path: string;
  readonly sizeBytes: number;
  /** Hexadecimal. */
  readonly sha256: string;
}

/** One directory tree that was saved with the process; its place in the list is its number in `data/`. */
export interface ImageTree {
  readonly root: string;
  /** Of what it says of all its files. */
  readonly sha256: string;
  /** Of all contents without their holes. */
  readonly dataBytes: number;
}

/** One pipe between processes whose images were taken at one moment. */
export interface SharedPipe {
  readonly inode: number;
  /** Whom it is shared with, and the checkpoint of that one. */
  readonly others: readonly { readonly process: string; readonly checkpoint: number }[];
}

/** Everything but the files, which the store adds. */
export interface ImageFacts {
  readonly format: typeof MANIFEST_FORMAT;
  readonly application: string;
  readonly process: string;
  readonly checkpoint: number;
  readonly incarnation: number;
  readonly driver: { readonly name: string; readonly version: string; readonly notes: DriverNotes };
  /** When the process stood still, ISO 8601; for people. */
  readonly time: string;
  readonly kernel: string;
  readonly pids: readonly number[];
  readonly cgroup: string;
  /** The cut at the same instant, connection by connection. */
  readonly connections: readonly CutDetail[];
  readonly cutComplete: boolean;
  readonly uncaptured: readonly string[];
  /** Pipes that the process shares with others. Absent: none, or an image of an older version. */
  readonly pipes?: readonly SharedPipe[];
  /** Absent: none, or an image of an older version. */
  readonly data?: readonly ImageTree[];
}

interface ImageManifest extends ImageFacts {
  readonly files: readonly ImageFile[];
}

/** The folder of a process's images. */
export function imagesFolder(home: string, app: string, process: string): string {
  return join(home, app, "images", process);
}

/** The folder of the n-th tree of an image. */
export function dataFolder(image: string, number: number): string {
  return join(image, "data", String(number));
}

/** An image while it grows. */
export class NewImage {
  /** Where the driver puts its files. */
  readonly files: string;
  readonly #partial: string;
  readonly #final: string;

  #lock: number | undefined;

  private constructor(partial: string, final: string, lock: number) {
    this.#lock = lock;
    this.#partial = partial;
    this.#final = final;
    this.files = join(partial, FILES);
  }

  /**
   * Clears away what a killed checkpoint of the process left. `numbered` gives its number once nobody else makes images of the process: one that was
   * given before may be another's by then, whose image is recorded. Throws RL_LOCKED where another one is at work.
   */
  static async begin(
    home: string,
    app: string,
    process: string,
    numbered: () => Promise<number>,
  ): Promise<NewImage> {
    const folder = imagesFolder(home, app, process);
    await mkdir(folder, { recursive: true, mode: 0o700 });
    await mkdir(join(home, app, "gc"), { recursive: true, mode: 0o700 }); // on a full disk there is no room for it
    const lock = await lockImages(folder, process);
    try {
      const index = await numbered();
      const image = new NewImage(join(folder, `${PARTIAL}${index}`), join(folder, String(index)), lock);
      for (const name of await readdir(folder)) {
        if (name.startsWith(PARTIAL) || name === String(index))
          await rm(join(folder, name), { recursive: true, force: true });
      }
      await mkdir(image.files, { recursive: true, mode: 0o700 });
      return image;
    } catch (error) {
      native().unlock(lock);
      throw error;
    }
  }

  /** Its record is in the log, or may be: it stays. Until then nobody takes it for one that was never recorded. */
  release(): void {
    if (this.#lock !== undefined) native().unlock(this.#lock);
    this.#lock = undefined;
  }

  /** Where the n-th directory tree is saved to. */
  data(number: number): string {
    return dataFolder(this.#partial, number);
  }

  /** Durable under its name on return. `reference` is what the checkpoint event carries as `image`. */
  async seal(facts: ImageFacts): Promise<{ reference: string; sizeBytes: number }> {
    const paths = await filesBelow(this.files);
    const files: ImageFile[] = [];
    for (let from = 0; from < paths.length; from += FILES_TOGETHER)
      files.push(
        ...(await Promise.all(paths.slice(from, from + FILES_TOGETHER).map((path) => this.#sealFile(path)))),
      );
    const text = `${JSON.stringify({ ...facts, files } satisfies ImageManifest, null, 1)}\n`;
    await writeSynced(join(this.#partial, MANIFEST), text);
    for (const folder of [this.files, this.#partial]) await syncPath(folder);
    await rename(this.#partial, this.#final);
    const parent = dirname(this.#final);
    for (const folder of [parent, dirname(parent), dirname(dirname(parent))]) await syncPath(folder);
    const name = `images/${facts.process}/${facts.checkpoint}`;
    const reference = `${name}#${createHash("sha256").update(text).digest("hex")}`;
    return { reference, sizeBytes: files.reduce((sum, file) => sum + file.sizeBytes, 0) };
  }

  /** Many at once: one commit of the file system's journal then serves several of them. */
  async #sealFile(path: string): Promise<ImageFile> {
    const file = join(this.files, path);
    const [stored] = await Promise.all([digest(file), syncPath(file)]);
    return { path, ...stored };
  }

  async discard(): Promise<void> {
    await rm(this.#partial, { recursive: true, force: true });
    await rm(this.#final, { recursive: true, force: true });
    this.release();
  }
}

export interface StoredImage {
  /** The driver's files. */
  readonly files: string;
  readonly manifest: ImageManifest;
  /** The process's directory trees. */
  readonly trees: readonly StoredTree[];
}

/** A look at what is there (`settledImages`) takes a moment. */
async function lockImages(folder: string, process: string): Promise<number> {
  try {
    return await lockedBy(performance.now() + LOOK_MS, () => call(folder, () => native().lock(folder)));
  } catch (error) {
    if (!hasCode(error, "RL_LOCKED")) throw error;
    throw new RecoveryLineError(
      "RL_LOCKED",
      `another checkpoint of ${process} is being taken`,
      "Wait for it, or end it.",
      error,
    );
  }
}

/**
 * Opens an image after checking every byte of it. `reference`: `image` of the checkpoint event.
 * Throws RL_REFUSED, naming the file, where anything differs from what the log and the manifest say, or can't be read.
 */
export async function openImage(home: string, app: string, reference: string): Promise<StoredImage> {
  const match = /^(images\/[A-Za-z0-9][A-Za-z0-9._-]{0,63}\/[1-9]\d*)#([0-9a-f]{64})$/.exec(reference);
  if (match === null) throw refused(reference, "is no reference to an image of ours");
  const folder = join(home, app, match[1]!);
  try {
    return await readImage(folder, match[2]!);
  } catch (error) {
    const { code, syscall, path = folder } = error as NodeJS.ErrnoException;
    if (syscall === undefined || OUR_OWN.has(code)) throw error;
    throw refused(path, `can't be read (${code})`);
  }
}

/** What the system refuses for want of our own means says nothing of what was read. */
const OUR_OWN: ReadonlySet<string | undefined> = new Set(["EMFILE", "ENFILE", "ENOMEM", "EACCES", "EPERM"]);

async function readImage(folder: string, sha256: string): Promise<StoredImage> {
  const manifest = await readManifest(folder, sha256);
  const known = new Set(manifest.files.map(({ path }) => path));
  const files = join(folder, FILES);
  for (let from = 0; from < manifest.files.length; from += FILES_TOGETHER)
    await Promise.all(
      manifest.files.slice(from, from + FILES_TOGETHER).map((file) => checkFile(files, file)),
    );
  for (const path of await filesBelow(files).catch(() => [])) {
    if (!known.has(path)) throw refused(join(files, path), "is not in the manifest");
  }
  const trees = (manifest.data ?? []).map(({ sha256: ofTree }, number) =>
    openTree(dataFolder(folder, number), ofTree),
  );
  for (const tree of trees) await verifyTree(tree);
  return { files, manifest, trees };
}

/** What the newest image there says it holds: only good to begin from, since nobody has checked it. */
export async function newestManifest(
  folder: string,
): Promise<{ image: string; facts: ImageFacts } | undefined> {
  const names = await readdir(folder).catch(() => []);
  const newest = Math.max(...names.map(Number).filter((index) => Number.isSafeInteger(index)), 0);
  const image = join(folder, String(newest));
  try {
    return { image, facts: JSON.parse(await readFile(join(image, MANIFEST), "utf8")) as ImageFacts };
  } catch {
    return undefined;
  }
}

/** An image that lies under its number, and which of several that had it one after the other. */
export interface SettledImage {
  readonly process: string;
  readonly checkpoint: number;
  readonly identity: string;
}

/** Does the work while nobody takes an image of the process; undefined where somebody does, or there is nothing. */
export async function whileNoImageIsTaken<T>(
  images: string,
  process: string,
  work: (folder: string) => Promise<T>,
): Promise<T | undefined> {
  const folder = join(images, process);
  let lock: number;
  try {
    lock = native().lock(folder);
  } catch {
    return undefined; // nor where we can't know
  }
  try {
    return await work(folder);
  } finally {
    native().unlock(lock);
  }
}

/** Sealed images of processes of which nobody takes one now: those that are not in the log after this look never will be. */
export async function settledImages(images: string): Promise<SettledImage[]> {
  const found: SettledImage[] = [];
  for (const process of await readdir(images).catch(() => [])) {
    if (!PATH_NAME.test(process)) continue;
    const settled = await whileNoImageIsTaken(images, process, async (folder) => {
      const names = (await readdir(folder)).filter((name) => IMAGE_NAME.test(name));
      return Promise.all(
        names.map(async (name) => {
          const identity = await identityOf(join(folder, name));
          return identity === undefined ? [] : [{ process, checkpoint: Number(name), identity }];
        }),
      );
    });
    found.push(...(settled ?? []).flat());
  }
  return found;
}

/** A number may be given again after a crash. Undefined: no folder is there. */
export async function identityOf(image: string): Promise<string | undefined> {
  const stat = await lstat(image, { bigint: true }).catch(() => undefined);
  return stat?.isDirectory() ? `${stat.ino} ${stat.ctimeNs}` : undefined;
}

/** What one image takes, in bytes; data that is shared with others counts in each. */
export interface ImageSize {
  readonly checkpoint: number;
  readonly imageBytes: number;
  readonly dataBytes: number;
}

/** Of all images of a process, as their manifests say, oldest first; none where nobody lets us look. */
export async function imageSizes(home: string, app: string, process: string): Promise<ImageSize[]> {
  const folder = imagesFolder(home, app, process);
  const names = (await readdir(folder).catch(() => [])).filter((name) => IMAGE_NAME.test(name));
  const sizes = await Promise.all(names.map((name) => sizeOf(join(folder, name))));
  return sizes.filter((size) => size !== undefined).sort((a, b) => a.checkpoint - b.checkpoint);
}

async function sizeOf(image: string): Promise<ImageSize | undefined> {
  try {
    const {
      checkpoint,
      files,
      data = [],
    } = JSON.parse(await readFile(join(image, MANIFEST), "utf8")) as ImageManifest;
    return {
      checkpoint,
      imageBytes: files.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0),
      dataBytes: data.reduce((sum, { dataBytes }) => sum + dataBytes, 0),
    };
  } catch {
    return undefined; // it is being removed
  }
}

async function readManifest(folder: string, sha256: string): Promise<ImageManifest> {
  const path = join(folder, MANIFEST);
  const size = (await lstat(path).catch(() => undefined))?.size;
  if (size === undefined) throw refused(path, "is missing");
  if (size > MAX_MANIFEST_BYTES) throw refused(path, "is longer than any manifest");
  const text = await readFile(path);
  if (createHash("sha256").update(text).digest("hex") !== sha256)
    throw refused(path, "differs from the checksum in the log");
  return JSON.parse(text.toString()) as ImageManifest; // as we wrote it: the checksum says so
}

async function checkFile(folder: string, { path, sizeBytes, sha256 }: ImageFile): Promise<void> {
  const file = join(folder, path);
  const stat = await lstat(file).catch(() => undefined);
  if (stat === undefined) throw refused(file, "is missing");
  if (!stat.isFile() || stat.size !== sizeBytes)
    throw refused(file, `is not the file of ${sizeBytes} bytes that was stored`);
  if ((await digest(file)).sha256 !== sha256) throw refused(file, "differs from its checksum");
}

function refused(path: string, why: string): RecoveryLineError {
  return new RecoveryLineError(
    "RL_REFUSED",
    `image damaged: ${path} ${why}`,
    "It is not restored. An older checkpoint of the process may do: restart --back-further.",
  );
}

/** Paths of all regular files, relative, sorted. */
async function filesBelow(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => !entry.isDirectory())
    .map((entry) => join(entry.parentPath, entry.name).slice(folder.length + 1))
    .sort();
}

async function digest(path: string): Promise<{ sizeBytes: number; sha256: string }> {
  const hash = createHash("sha256");
  let sizeBytes = 0;
  for await (const chunk of createReadStream(path, { highWaterMark: CHUNK_BYTES })) {
    hash.update(chunk as Buffer);
    sizeBytes += (chunk as Buffer).length;
  }
  return { sizeBytes, sha256: hash.digest("hex") };
}

async function writeSynced(path: string, text: string): Promise<void> {
  const file = await open(path, "wx", 0o600);
  try {
    await file.writeFile(text);
    await file.sync();
  } finally {
    await file.close();
  }
}

async function syncPath(path: string): Promise<void> {
  const file = await open(path, "r");
  await file.sync().finally(() => file.close());
}
