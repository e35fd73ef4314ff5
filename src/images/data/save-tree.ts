/**
 * Saving a tree in two phases: `prepare` while its processes run, `finish` while they stand still.
 *
 *     <folder>/tree.jsonl      what there is, with the checksums of all contents (tree-entry.ts)
 *     <folder>/files/<n>       contents; one that did not change since the tree was saved before is a hard link to that stored copy
 *
 * A copy is as good as its file if nobody can have written since copying began: the same inode, the same ctime, which is older than that
 * moment by QUIET_NS, and no mapping to write it by, then or now. `prepare` refers to what is so since the save before, and copies the
 * rest; `finish` compares what is not so since then. Nothing stored is ever a hard link to a live file, or written once it is sealed.
 */
import { createHash } from "node:crypto";
import {
  type BigIntStats,
  closeSync,
  fstatSync,
  linkSync,
  mkdirSync,
  rmSync,
  statfsSync,
  writeFileSync,
} from "node:fs";
import { rename } from "node:fs/promises";
import { join } from "node:path";
import { RecoveryLineError } from "../../model/errors.ts";
import { copyContent, openToRead, patchContent } from "./copy-content.ts";
import { type MappedFiles, mappedFiles } from "./mapped-files.ts";
import { CONTENTS, type StoredTree, TREE_FILE } from "./stored-tree.ts";
import { syncAll, syncEach } from "./sync-files.ts";
import {
  type ByteString,
  below,
  byteString,
  inodeOf,
  type StoredContent,
  shown,
  type TreeEntry,
  treeText,
} from "./tree-entry.ts";
import { isGone, walkTree } from "./walk-tree.ts";

/** Copied while frozen, at most, unless told otherwise, bytes. */
export const DATA_LIMIT_BYTES = 1 << 30;

/**
 * How long a file must have been left alone before its copy was begun, ns. A clock tick (10 ms) would do for the time itself; but a call
 * that writes sets it once, before it moves up to 2 GiB. What is younger is compared while frozen.
 */
const QUIET_NS = 2_000_000_000n;
/** After so many bytes other work gets its turn. */
const BREATH_BYTES = 16 << 20;
/** Where times tell every write that was not made through a mapping held before: ext, xfs, btrfs, f2fs, tmpfs, overlayfs. */
const TELLING = new Set([0xef53, 0x58465342, 0x9123683e, 0xf2f52010, 0x01021994, 0x794c7630]);

export interface SaveOptions {
  /** An earlier save of the tree, on the same file system as the new one. */
  readonly before?: StoredTree;
  readonly quietNs?: bigint;
}

export interface TreeSaved {
  /** SHA-256 of `tree.jsonl`, which has those of all contents. */
  readonly sha256: string;
  readonly entries: number;
  /** Of all contents without their holes, and what of it was copied while frozen. */
  readonly dataBytes: number;
  readonly frozenBytes: number;
}

interface Copy extends StoredContent {
  /** A hard link to the copy of an earlier save: not to be written. */
  readonly isShared: boolean;
}

/** A file that is not what was copied of it, or may be something else. */
interface Changed {
  readonly number: number;
  readonly path: ByteString;
  readonly stat: BigIntStats;
  readonly copy: Copy | undefined;
  readonly begin: bigint;
  readonly isMapped: boolean;
}

export class TreeSave {
  readonly root: string;
  readonly #place: ByteString;
  readonly #folder: string;
  readonly #copies = new Map<string, Copy>();
  readonly #telling: boolean;
  readonly #quietNs: bigint;
  #next = 1;
  #frozenBytes = 0;

  private constructor(root: string, folder: string, quietNs: bigint) {
    this.#quietNs = quietNs;
    this.root = root;
    this.#place = byteString(root);
    this.#folder = folder;
    this.#telling = TELLING.has(statfsSync(root).type);
  }

  /**
   * Copies what can be copied by now into `folder`, which is made. `root` is absolute and has no symbolic links in it.
   * Durable on return, but for what `finish` writes.
   */
  static async prepare(root: string, folder: string, options: SaveOptions = {}): Promise<TreeSave> {
    const { before, quietNs = QUIET_NS } = options;
    const save = new TreeSave(root, folder, quietNs);
    mkdirSync(join(folder, CONTENTS), { recursive: true, mode: 0o700 });
    await save.#copyAll(before);
    await syncAll(folder);
    return save;
  }

  async #copyAll(before: StoredTree | undefined): Promise<void> {
    const begin = nowNs();
    const mapped = mappedFiles();
    const { entries, files } = walkTree(this.#place);
    let breath = 0;
    for (const [number, stat] of files) {
      if (stat.size === 0n) continue;
      const path = below(this.#place, entries[number]!.path);
      if (this.#refer(before, path, stat, mapped)) continue;
      this.#copy(path, stat, begin, mapped.has(stat.ino, path), (bytes) => {
        breath += bytes;
      });
      if (breath < BREATH_BYTES) continue;
      breath = 0;
      await new Promise((resolve) => setImmediate(resolve));
    }
  }

  /** Takes the copy of the save before, if that is as good as the file. */
  #refer(before: StoredTree | undefined, path: ByteString, stat: BigIntStats, mapped: MappedFiles): boolean {
    const copy = before?.contents.get(inodeOf(stat));
    if (before === undefined || copy === undefined || !this.#isGood(copy, path, stat, mapped)) return false;
    const number = this.#next++;
    linkSync(join(before.folder, CONTENTS, String(copy.number)), this.#stored(number));
    this.#copies.set(inodeOf(stat), { ...copy, number, isShared: true });
    return true;
  }

  #isGood(
    { sizeBytes, source }: StoredContent,
    path: ByteString,
    stat: BigIntStats,
    mapped: MappedFiles,
  ): boolean {
    return (
      this.#telling &&
      BigInt(sizeBytes) === stat.size &&
      source.ctime === String(stat.ctimeNs) &&
      stat.ctimeNs + this.#quietNs < BigInt(source.begin) &&
      !source.mapped &&
      !mapped.has(stat.ino, path)
    );
  }

  #stored(number: number): string {
    return join(this.#folder, CONTENTS, String(number));
  }

  /** Nothing, if another file has taken the name or it is gone. */
  #copy(
    path: ByteString,
    stat: BigIntStats,
    begin: bigint,
    isMapped: boolean,
    copied: (bytes: number) => void,
  ): Copy | undefined {
    return withSame(path, stat, (file) => {
      const number = this.#next++;
      const content = copyContent(file, byteString(this.#stored(number)), copied);
      return this.#keep({ ...content, number, source: sourceOf(stat, begin, isMapped), isShared: false });
    });
  }

  #keep(copy: Copy): Copy {
    this.#copies.set(copy.source.inode, copy);
    return copy;
  }

  /** What the tree is now: nobody may write it until this returns. Durable then. Throws RL_REFUSED where more than `limitBytes` would be copied. */
  async finish(limitBytes = DATA_LIMIT_BYTES): Promise<TreeSaved> {
    const begin = nowNs();
    const mapped = mappedFiles();
    const { entries, files } = walkTree(this.#place);
    const contents = new Map<number, StoredContent>();
    const changed: Changed[] = [];
    for (const [number, stat] of files) {
      if (stat.size === 0n) continue;
      const path = below(this.#place, entries[number]!.path);
      const copy = this.#copies.get(inodeOf(stat));
      if (copy !== undefined && this.#isGood(copy, path, stat, mapped)) contents.set(number, plain(copy));
      else changed.push({ number, path, stat, copy, begin, isMapped: mapped.has(stat.ino, path) });
    }
    for (const file of changed)
      contents.set(
        file.number,
        this.#bringUp(file, (bytes) => this.#count(bytes, limitBytes, changed)),
      );
    const now = entries.map((entry, number) => {
      const content = contents.get(number);
      return content === undefined ? entry : { ...entry, content };
    });
    this.#removeUnused(now);
    return await this.#seal(
      now,
      changed.map(({ number }) => this.#stored(contents.get(number)!.number)),
    );
  }

  #bringUp(file: Changed, copied: (bytes: number) => void): StoredContent {
    const { path, stat, copy, begin, isMapped } = file;
    const fresh =
      copy === undefined || copy.isShared
        ? this.#copy(path, stat, begin, isMapped, copied)
        : this.#patch(copy, path, stat, begin, isMapped || copy.source.mapped, copied);
    if (fresh !== undefined) return plain(fresh);
    throw new RecoveryLineError(
      "RL_REFUSED",
      `${shown(path)} was replaced while the process stood still: somebody else writes below ${this.root}`,
      "Stop what writes there, or make it a process of the application.",
    );
  }

  #patch(
    copy: Copy,
    path: ByteString,
    stat: BigIntStats,
    begin: bigint,
    isMapped: boolean,
    copied: (bytes: number) => void,
  ): Copy | undefined {
    return withSame(path, stat, (file) => {
      const content = patchContent(file, byteString(this.#stored(copy.number)), copy, copied);
      return this.#keep({ ...copy, ...content, source: sourceOf(stat, begin, isMapped) });
    });
  }

  #count(bytes: number, limitBytes: number, changed: readonly Changed[]): void {
    this.#frozenBytes += bytes;
    if (this.#frozenBytes <= limitBytes) return;
    const all = changed.reduce((sum, { stat }) => sum + Number(stat.blocks) * 512, 0);
    throw new RecoveryLineError(
      "RL_REFUSED",
      `more than ${limitBytes} bytes below ${this.root} would be copied while the process stands still: ` +
        `${changed.length} files with ${all} bytes have changed since they were copied, or may have`,
      "Take a checkpoint when less changes, raise --data-limit, or keep the data on a file system that clones files (xfs, btrfs).",
    );
  }

  /** Copies of files that are gone or were replaced. */
  #removeUnused(entries: readonly TreeEntry[]): void {
    const used = new Set(entries.map(({ content }) => content?.number));
    for (let number = 1; number < this.#next; number += 1)
      if (!used.has(number)) rmSync(this.#stored(number), { force: true });
  }

  async #seal(entries: readonly TreeEntry[], written: readonly string[]): Promise<TreeSaved> {
    const text = treeText({ format: 1, root: this.#place, entries: entries.length }, entries);
    const partial = join(this.#folder, `.${TREE_FILE}`);
    writeFileSync(partial, text, { mode: 0o600, flag: "wx" });
    await syncEach([...written, partial]);
    await rename(partial, join(this.#folder, TREE_FILE));
    await syncEach([join(this.#folder, CONTENTS), this.#folder]);
    return {
      sha256: createHash("sha256").update(text).digest("hex"),
      entries: entries.length,
      dataBytes: entries.reduce(
        (sum, { content }) => sum + (content === undefined ? 0 : bytesIn(content)),
        0,
      ),
      frozenBytes: this.#frozenBytes,
    };
  }
}

function nowNs(): bigint {
  return BigInt(Date.now()) * 1_000_000n;
}

function sourceOf(stat: BigIntStats, begin: bigint, mapped: boolean): StoredContent["source"] {
  return { inode: inodeOf(stat), ctime: String(stat.ctimeNs), begin: String(begin), mapped };
}

function plain({ number, sizeBytes, extents, sha256, source }: StoredContent): StoredContent {
  return { number, sizeBytes, extents, sha256, source };
}

export function bytesIn({ extents }: StoredContent): number {
  return extents.reduce((sum, offset, at) => (at % 2 === 0 ? sum - offset : sum + offset), 0);
}

/** Undefined where `openSame` is. */
function withSame<T>(path: ByteString, stat: BigIntStats, work: (file: number) => T): T | undefined {
  const file = openSame(path, stat);
  if (file === undefined) return undefined;
  try {
    return work(file);
  } finally {
    closeSync(file);
  }
}

/** The file of the walk; undefined where it is gone, or another one has its name by now. */
function openSame(path: ByteString, stat: BigIntStats): number | undefined {
  try {
    const file = openToRead(path);
    if (inodeOf(fstatSync(file, { bigint: true })) === inodeOf(stat)) return file;
    closeSync(file);
    return undefined;
  } catch (error) {
    if (isGone(error) || (error as NodeJS.ErrnoException).code === "ELOOP") return undefined;
    throw error;
  }
}
