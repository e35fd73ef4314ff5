/** Trees in the store: opened by the checksum of what they say, checked byte by byte. */
import { createHash } from "node:crypto";
import { closeSync, lstatSync, openSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { RecoveryLineError } from "../../model/errors.ts";
import { hashOf, readChunk } from "./copy-content.ts";
import {
  below,
  CHUNK_BYTES,
  chunksOf,
  parseTree,
  type StoredContent,
  shown,
  type TreeEntry,
} from "./tree-entry.ts";

export const TREE_FILE = "tree.jsonl";
export const CONTENTS = "files";

export interface StoredTree {
  readonly folder: string;
  /** Where it belongs. */
  readonly root: string;
  readonly entries: readonly TreeEntry[];
  /** By `device:inode` of the file it was copied from. */
  readonly contents: ReadonlyMap<string, StoredContent>;
}

/** `sha256`: what its save told. Throws RL_REFUSED; contents are not looked at. */
export function openTree(folder: string, sha256: string): StoredTree {
  const path = join(folder, TREE_FILE);
  const text = readOrRefuse(path);
  if (createHash("sha256").update(text).digest("hex") !== sha256)
    throw damaged(path, "differs from its checksum");
  const { header, entries } = parseTree(text.toString());
  const contents = entries.flatMap(({ content }) => (content === undefined ? [] : [content]));
  return {
    folder,
    root: shown(header.root),
    entries,
    contents: new Map(contents.map((content) => [content.source.inode, content])),
  };
}

function readOrRefuse(path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    throw damaged(path, "is missing");
  }
}

/** Reads all of it. Throws RL_REFUSED, naming the file in the store and the one it belongs to, where anything differs. */
export async function verifyTree(tree: StoredTree): Promise<void> {
  const known = new Set<string>();
  for (const { path, content } of tree.entries) {
    if (content === undefined) continue;
    known.add(String(content.number));
    checkContent(tree, below(tree.root, path), content);
    await new Promise((resolve) => setImmediate(resolve));
  }
  const other = readdirSync(join(tree.folder, CONTENTS)).find((name) => !known.has(name));
  if (other !== undefined) throw damaged(join(tree.folder, CONTENTS, other), "is not in the tree");
}

function checkContent(tree: StoredTree, source: string, content: StoredContent): void {
  const path = join(tree.folder, CONTENTS, String(content.number));
  const stat = lstatSync(path, { throwIfNoEntry: false });
  if (stat === undefined) throw damaged(path, `is missing (${shown(source)})`);
  if (!stat.isFile() || stat.size !== content.sizeBytes)
    throw damaged(path, `is not the file of ${content.sizeBytes} bytes that was stored (${shown(source)})`);
  const file = openSync(path, "r");
  try {
    const chunk = Buffer.alloc(CHUNK_BYTES);
    for (const [at, number] of chunksOf(content.extents).entries())
      if (hashOf(readChunk(file, number, content, chunk)) !== content.sha256[at])
        throw damaged(
          path,
          `differs from its checksum (${shown(source)}, from byte ${number * CHUNK_BYTES})`,
        );
  } finally {
    closeSync(file);
  }
}

function damaged(path: string, why: string): RecoveryLineError {
  return new RecoveryLineError(
    "RL_REFUSED",
    `data damaged: ${path} ${why}`,
    "It is not put back. Use an older checkpoint of the process.",
  );
}
