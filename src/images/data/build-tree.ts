/** A stored tree → the same tree in a folder, exactly: contents, holes, kinds, links, owners, modes, attributes, times. */
import {
  chmodSync,
  closeSync,
  constants,
  lchownSync,
  linkSync,
  mkdirSync,
  openSync,
  symlinkSync,
} from "node:fs";
import { join } from "node:path";
import { native } from "../../native/binding.ts";
import { restoreContent } from "./copy-content.ts";
import { CONTENTS, type StoredTree } from "./stored-tree.ts";
import { type ByteString, below, bytesOf, type TreeEntry } from "./tree-entry.ts";
import { statOf } from "./walk-tree.ts";

const TYPE = {
  fifo: constants.S_IFIFO,
  socket: constants.S_IFSOCK,
  character: constants.S_IFCHR,
  block: constants.S_IFBLK,
};
/** Names that a security module gives by itself and lets nobody remove. */
const GIVEN = /^security\.(?!capability$)/;

/** Fills `folder`, which is there and empty. The root's own attributes stay those of `folder`: see `setFacts`. */
export async function buildTree(tree: StoredTree, folder: ByteString): Promise<void> {
  const entries = tree.entries.slice(1);
  for (const entry of entries) {
    make(tree, entry, folder);
    if (entry.content !== undefined) await new Promise((resolve) => setImmediate(resolve));
  }
  // What is made in a folder moves its times, and a folder may forbid making: so last, the innermost first.
  for (const entry of entries.reverse())
    if (entry.kind === "folder") setFacts(below(folder, entry.path), entry);
}

function make(tree: StoredTree, entry: TreeEntry, folder: ByteString): void {
  const path = below(folder, entry.path);
  const place = bytesOf(path);
  if (entry.same !== undefined) {
    linkSync(bytesOf(below(folder, tree.entries[entry.same]!.path)), place);
    return;
  }
  if (entry.kind === "folder") {
    mkdirSync(place, 0o700);
    return;
  }
  if (entry.kind === "file") makeFile(tree, entry, path);
  else if (entry.kind === "link") symlinkSync(bytesOf(entry.target!), place);
  else native().makeNode(place, TYPE[entry.kind] | 0o600, entry.device ?? 0);
  setFacts(path, entry);
}

function makeFile(tree: StoredTree, { content }: TreeEntry, path: ByteString): void {
  if (content === undefined) {
    closeSync(openSync(bytesOf(path), "wx", 0o600));
    return;
  }
  const stored = openSync(join(tree.folder, CONTENTS, String(content.number)), "r");
  try {
    restoreContent(stored, path, content);
  } finally {
    closeSync(stored);
  }
}

/** Owner, mode, attributes, times, in this order: each of the first takes something from those behind it. */
export function setFacts(path: ByteString, entry: TreeEntry): void {
  const place = bytesOf(path);
  const stat = statOf(path)!;
  if (Number(stat.uid) !== entry.uid || Number(stat.gid) !== entry.gid)
    lchownSync(place, entry.uid, entry.gid);
  if (entry.kind !== "link") chmodSync(place, entry.mode);
  setAttributes(place, entry);
  native().setFileTimes(place, BigInt(entry.atime), BigInt(entry.mtime));
}

function setAttributes(place: Buffer, { attributes = [] }: TreeEntry): void {
  const now = new Map(
    native()
      .fileAttributes(place)
      .map(([name, value]) => [name, value.toString("base64")]),
  );
  for (const [name, value] of attributes) {
    if (now.get(name) !== value) native().setFileAttribute(place, name, Buffer.from(value, "base64"));
    now.delete(name);
  }
  for (const name of now.keys()) if (!GIVEN.test(name)) native().setFileAttribute(place, name, undefined);
}
