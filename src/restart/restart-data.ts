/**
 * The directory trees of the processes that a restart brings back: built aside before the journal is written, moved in once the old
 * processes are dead, and what was overwritten removed once the new ones are all there (data-tree/exchange-tree.ts). The journal names
 * them, so that whatever cuts a restart off, the next call takes them back and begins anew: nothing has run on them in between.
 */
import { createHash } from "node:crypto";
import { refuseUnfinished, TreeExchange } from "../images/data/exchange-tree.ts";
import type { MappedFile } from "../images/data/mapped-contents.ts";
import type { StoredTree } from "../images/data/stored-tree.ts";
import { refuseForeignWriters, refuseOverlaps } from "../images/data/tree-users.ts";
import { RecoveryLineError } from "../model/errors.ts";
import type { ProcessData } from "../model/stored-process.ts";
import type { Target } from "./plan.ts";

/** One tree to be put back. */
export interface DataTarget {
  readonly process: string;
  readonly tree: StoredTree;
}

/** One that is being put back, as the journal names it. */
export interface JournalTree {
  readonly root: string;
  /** Tells its exchange from those of other restarts. */
  readonly id: string;
}

/** As collections of `ProcessData` by process. */
export type KnownData = ReadonlyMap<string, ProcessData>;

/**
 * All that keeps trees from being put back. Throws RL_REFUSED, RL_LOCKED, with nothing touched.
 * `kept`: data of all processes as it is now; `own`: tasks that are killed.
 */
export function checkData(targets: readonly DataTarget[], kept: KnownData, own: readonly number[]): void {
  const back = new Set(targets.map(({ process }) => process));
  const others = [...kept].filter(([process]) => !back.has(process));
  refuseOverlaps([
    ...targets.map(({ process, tree }) => ({ process, root: tree.root })),
    ...others.flatMap(([process, { roots }]) => roots.map((root) => ({ process, root }))),
  ]);
  const roots = targets.map(({ tree }) => tree.root);
  for (const root of roots) refuseUnfinished(root);
  refuseForeignWriters(roots, new Set(own));
}

/** Throws RL_REFUSED where an image does not hold a tree that is part of the process's state now. */
export function refuseMissing(
  process: string,
  checkpoint: number,
  trees: readonly StoredTree[],
  data: ProcessData | undefined,
): void {
  const missing = data?.roots.find((root) => !trees.some((tree) => tree.root === root));
  if (missing === undefined) return;
  throw new RecoveryLineError(
    "RL_REFUSED",
    `checkpoint ${checkpoint} of ${process} does not hold its data in ${missing}, which was named later`,
    `Nothing was killed or restored. To go back all the same, with the files as they are now: recovery-line data <app> ${process} --none`,
  );
}

/** Builds all of them aside; nothing of the old ones is touched. */
export async function stageData(
  home: string,
  app: string,
  targets: readonly DataTarget[],
): Promise<JournalTree[]> {
  const staged: JournalTree[] = [];
  try {
    for (const [number, { process, tree }] of targets.entries()) {
      const id = `${hashOf(home)}-${app}-${process}-${number}`;
      await TreeExchange.stage(tree, tree.root, id);
      staged.push({ root: tree.root, id });
    }
  } catch (error) {
    await takeBack(staged);
    throw error;
  }
  return staged;
}

function hashOf(text: string): string {
  return createHash("sha256").update(text).digest("hex").slice(0, 8);
}

function exchangesOf(trees: readonly JournalTree[]): TreeExchange[] {
  return trees.flatMap(({ root, id }) =>
    TreeExchange.find(root).filter(({ work }) => work.endsWith(`-${id}`)),
  );
}

/** Moves them in. Nothing may run on the old ones. */
export async function moveIn(trees: readonly JournalTree[]): Promise<void> {
  for (const exchange of exchangesOf(trees)) await exchange.forward();
}

/** All as it was before, from wherever it was cut off; again, it does nothing. */
export async function takeBack(trees: readonly JournalTree[]): Promise<void> {
  for (const exchange of exchangesOf(trees)) await exchange.back();
}

/** Removes what was overwritten, or returns where it is kept. Nothing may have run on the new ones yet; again, it does nothing. */
export async function endExchange(trees: readonly JournalTree[], keep: boolean): Promise<string[]> {
  const kept: string[] = [];
  for (const exchange of exchangesOf(trees)) {
    const folder = await exchange.end(keep);
    if (folder !== undefined) kept.push(folder);
  }
  return kept;
}
// ---- putting them back
/** Of a process that comes back from an image. */

export function mappedOf(target: Target): readonly MappedFile[] {
  if (target.action !== "restore") return [];
  return (target.image.manifest.driver.notes["mapped"] ?? []) as readonly MappedFile[]; // the manifest's checksum says that they are as we wrote them
}
