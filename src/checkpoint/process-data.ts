/**
 * The data of a process: the directory trees that are part of its state, saved with each of its images and once before it begins, so that
 * they can be put back to each of these moments (data-tree/).
 *
 *     <home>/<app>/images/<process>/<index>/data/<n>       with a checkpoint
 *     <home>/<app>/images/<process>/start-<ms>/data/<n>    before its first instruction
 */
import { mkdirSync, readdirSync, rmSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { refuseUnfinished } from "../images/data/exchange-tree.ts";
import { TreeSave, type TreeSaved } from "../images/data/save-tree.ts";
import { openTree, type StoredTree, verifyTree } from "../images/data/stored-tree.ts";
import { refuseForeignWriters } from "../images/data/tree-users.ts";
import { dataFolder, type ImageTree, imagesFolder, newestManifest } from "../images/image-store.ts";
import { RecoveryLineError } from "../model/errors.ts";
import type { ProcessData } from "../model/stored-process.ts";

const START = "start-";

/** What became of one tree. */
export interface SavedTree extends ImageTree {
  readonly entries: number;
  /** Copied while the process stood still. */
  readonly frozenBytes: number;
}

/** All trees of a process on their way into one image. */
export class DataSave {
  readonly #saves: readonly TreeSave[];
  readonly #data: ProcessData;

  private constructor(saves: readonly TreeSave[], data: ProcessData) {
    this.#saves = saves;
    this.#data = data;
  }

  /**
   * While the process runs: all that can be copied by now. `folder` names where the n-th tree goes; `images`: the process's, of which
   * the newest is referred to where nothing has changed. `own`: the process's tasks. Throws RL_REFUSED, RL_LOCKED, RL_USAGE.
   */
  static async prepare(
    data: ProcessData,
    folder: (number: number) => string,
    images: string,
    own: readonly number[],
  ): Promise<DataSave> {
    for (const root of data.roots) refuseUnfinished(root);
    refuseForeignWriters(data.roots, new Set(own));
    const earlier = await earlierTrees(images, data);
    const saves: TreeSave[] = [];
    for (const [number, root] of data.roots.entries()) {
      mkdirSync(folder(number), { recursive: true, mode: 0o700 });
      saves.push(await prepareOne(root, folder(number), earlier.get(root)));
    }
    return new DataSave(saves, data);
  }

  /** While it stands still. Durable on return. Throws RL_REFUSED where more would be copied than may be, or somebody else writes there. */
  async finish(own: readonly number[]): Promise<SavedTree[]> {
    const { roots, limitBytes } = this.#data;
    refuseForeignWriters(roots, new Set(own));
    const saved: SavedTree[] = [];
    let leftBytes = limitBytes;
    for (const save of this.#saves) {
      const one = await save.finish(leftBytes);
      leftBytes -= one.frozenBytes;
      saved.push(savedTree(save.root, one));
    }
    return saved;
  }
}

function savedTree(root: string, { sha256, entries, dataBytes, frozenBytes }: TreeSaved): SavedTree {
  return { root, sha256, entries, dataBytes, frozenBytes };
}

/** A collection (`gc`) may remove the earlier image meanwhile. */
async function prepareOne(root: string, folder: string, before: StoredTree | undefined): Promise<TreeSave> {
  if (before === undefined) return TreeSave.prepare(root, folder);
  try {
    return await TreeSave.prepare(root, folder, { before });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    rmSync(folder, { recursive: true, force: true });
    return TreeSave.prepare(root, folder);
  }
}

/** By root: what the newest image holds, or what was saved before the process began. One that is damaged is no help. */
async function earlierTrees(images: string, data: ProcessData): Promise<ReadonlyMap<string, StoredTree>> {
  const newest = await newestManifest(images);
  const ofImage = (newest?.facts.data ?? []).map(({ sha256 }, number) =>
    opened(dataFolder(newest!.image, number), sha256),
  );
  const ofStart = startFolders(images, data).map(([folder, sha256]) => opened(folder, sha256));
  return new Map(
    [...ofStart, ...ofImage].flatMap((tree) => (tree === undefined ? [] : [[tree.root, tree] as const])),
  );
}

function opened(folder: string, sha256: string): StoredTree | undefined {
  try {
    return openTree(folder, sha256);
  } catch {
    return undefined;
  }
}

function startFolders(images: string, { start }: ProcessData): [folder: string, sha256: string][] {
  return (start?.sha256 ?? []).map((sha256, number) => [
    dataFolder(join(images, start!.folder), number),
    sha256,
  ]);
}

/** Saves the trees of a process that does not run yet. Throws as `prepare` and `finish` do; nothing is left then. */
export async function saveStart(
  home: string,
  app: string,
  process: string,
  data: ProcessData,
): Promise<ProcessData> {
  const images = imagesFolder(home, app, process);
  const folder = `${START}${Date.now()}`;
  await mkdir(images, { recursive: true, mode: 0o700 });
  try {
    const save = await DataSave.prepare(
      data,
      (number) => dataFolder(join(images, folder), number),
      images,
      [],
    );
    const saved = await save.finish([]);
    return { ...data, start: { folder, sha256: saved.map(({ sha256 }) => sha256) } };
  } catch (error) {
    rmSync(join(images, folder), { recursive: true, force: true });
    throw error;
  }
}

/** Of all that was saved before lives of the process began only `kept` stays; undefined: none. */
export function removeOtherStarts(
  home: string,
  app: string,
  process: string,
  kept: ProcessData | undefined,
): void {
  const images = imagesFolder(home, app, process);
  for (const name of namesIn(images))
    if (name.startsWith(START) && name !== kept?.start?.folder)
      rmSync(join(images, name), { recursive: true, force: true });
}

export function removeStart(home: string, app: string, process: string, { start }: ProcessData): void {
  if (start !== undefined)
    rmSync(join(imagesFolder(home, app, process), start.folder), { recursive: true, force: true });
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return []; // it has no images
  }
}

/**
 * The trees as they were before the process began, every byte checked. Throws RL_REFUSED where nobody saved them, or one is damaged.
 */
export async function startTrees(
  home: string,
  app: string,
  process: string,
  data: ProcessData | undefined,
): Promise<StoredTree[]> {
  if (data === undefined) return [];
  if (data.start === undefined)
    throw new RecoveryLineError(
      "RL_REFUSED",
      `${process} has to start again from its initial state, and nobody saved what ${data.roots.join(", ")} held then`,
      `Nothing was killed or restored. Its data was named while it ran (recovery-line data): put it back by hand and start ${process} with run --fresh.`,
    );
  const trees = startFolders(imagesFolder(home, app, process), data).map(([folder, sha256]) =>
    openTree(folder, sha256),
  );
  for (const tree of trees) await verifyTree(tree);
  return trees;
}
