/** A live tree → its entries, contents left out. What vanishes meanwhile is left out, too: it has ended by the moment that counts. */
import { type BigIntStats, lstatSync, readdirSync, readlinkSync } from "node:fs";
import { mountsOf } from "../../host/mounts.ts";
import { RecoveryLineError } from "../../model/errors.ts";
import { native } from "../../native/binding.ts";
import {
  type ByteString,
  below,
  bytesOf,
  type EntryKind,
  inodeOf,
  shown,
  type TreeEntry,
} from "./tree-entry.ts";

/** What a restore keeps aside may stand in the root itself; it is no part of the tree. */
export const WORK_PREFIX = ".recovery-line-replaced-";

export interface LiveTree {
  readonly entries: readonly TreeEntry[];
  /** By number of entry; only the first of several names of one file. */
  readonly files: ReadonlyMap<number, BigIntStats>;
}

/** Throws RL_USAGE where the root is no folder, RL_REFUSED for another file system below it and for links from outside. */
export function walkTree(root: ByteString): LiveTree {
  return new Walk(root).all();
}

class Walk {
  readonly #root: ByteString;
  readonly #entries: TreeEntry[] = [];
  readonly #files = new Map<number, BigIntStats>();
  /** Of what has several names: number of the first one, and how many are still to be found. */
  readonly #linked = new Map<string, { first: number; missing: number }>();

  constructor(root: ByteString) {
    this.#root = root;
  }

  all(): LiveTree {
    refuseMounts(this.#root);
    const stat = statOf(this.#root);
    if (stat === undefined || !stat.isDirectory())
      throw new RecoveryLineError(
        "RL_USAGE",
        `${shown(this.#root)} is no folder`,
        "Name a folder for --data.",
      );
    this.#add("", stat);
    for (const { first, missing } of this.#linked.values())
      if (missing > 0) throw this.#linkedOutside(this.#entries[first]!);
    return { entries: this.#entries, files: this.#files };
  }

  #add(path: ByteString, stat: BigIntStats): void {
    const number = this.#entries.length;
    const entry = entryOf(this.#root, path, stat);
    if (entry === undefined) return;
    const linked = entry.kind !== "folder" && stat.nlink > 1n ? this.#link(number, stat) : undefined;
    this.#entries.push(linked === undefined ? entry : { ...entry, same: linked });
    if (linked === undefined && entry.kind === "file") this.#files.set(number, stat);
    if (entry.kind === "folder") this.#addNames(path);
  }

  #addNames(folder: ByteString): void {
    for (const name of namesIn(below(this.#root, folder))) {
      if (folder === "" && name.startsWith(WORK_PREFIX)) continue;
      const path = folder === "" ? name : `${folder}/${name}`;
      const stat = statOf(below(this.#root, path));
      if (stat !== undefined) this.#add(path, stat);
    }
  }

  /** The number of the entry that it is another name of. */
  #link(number: number, stat: BigIntStats): number | undefined {
    const key = inodeOf(stat);
    const known = this.#linked.get(key);
    if (known !== undefined) known.missing -= 1;
    else this.#linked.set(key, { first: number, missing: Number(stat.nlink) - 1 });
    return known?.first;
  }

  #linkedOutside({ path }: TreeEntry): RecoveryLineError {
    return new RecoveryLineError(
      "RL_REFUSED",
      `${shown(below(this.#root, path))} has another name outside of ${shown(this.#root)}, which could not be put back`,
      "Name the folder that holds both, or remove the hard link.",
    );
  }
}

/** Names in the order of their bytes; none if the folder is gone. */
export function namesIn(folder: ByteString): ByteString[] {
  try {
    const names = readdirSync(bytesOf(folder), { encoding: "buffer" }) as unknown as Buffer[];
    return names.map((name) => name.toString("latin1")).sort();
  } catch (error) {
    if (isGone(error)) return [];
    throw error;
  }
}

export function statOf(path: ByteString): BigIntStats | undefined {
  try {
    return lstatSync(bytesOf(path), { bigint: true });
  } catch (error) {
    if (isGone(error)) return undefined;
    throw error;
  }
}

/** Everything but the content; undefined: it is gone. */
export function entryOf(root: ByteString, path: ByteString, stat: BigIntStats): TreeEntry | undefined {
  const place = bytesOf(below(root, path));
  const kind = kindOf(stat);
  try {
    const attributes = native()
      .fileAttributes(place)
      .map(([name, value]) => [name, value.toString("base64")] as const);
    return {
      path,
      kind,
      mode: Number(stat.mode & 0o7777n),
      uid: Number(stat.uid),
      gid: Number(stat.gid),
      atime: String(stat.atimeNs),
      mtime: String(stat.mtimeNs),
      ...(attributes.length === 0 ? {} : { attributes }),
      ...(kind === "link" ? { target: readlinkSync(place, { encoding: "latin1" }) } : {}),
      ...(kind === "character" || kind === "block" ? { device: Number(stat.rdev) } : {}),
    };
  } catch (error) {
    if (isGone(error)) return undefined;
    throw error;
  }
}

function kindOf(stat: BigIntStats): EntryKind {
  if (stat.isFile()) return "file";
  if (stat.isDirectory()) return "folder";
  if (stat.isSymbolicLink()) return "link";
  if (stat.isFIFO()) return "fifo";
  if (stat.isSocket()) return "socket";
  return stat.isCharacterDevice() ? "character" : "block";
}

const ENOENT = 2;

export function isGone(error: unknown): boolean {
  const { code, errno } = error as NodeJS.ErrnoException;
  return code === "ENOENT" || errno === ENOENT;
}

/** A mount point can be neither renamed nor put back by files. */
function refuseMounts(root: ByteString): void {
  const mount = mountsBelow(root)[0];
  if (mount === undefined) return;
  throw new RecoveryLineError(
    "RL_REFUSED",
    `${shown(mount)} is another file system, mounted below ${shown(root)}`,
    "Name both with --data, each alone, without one holding the other; or unmount it.",
  );
}

function mountsBelow(root: ByteString): ByteString[] {
  return mountsOf("self", "latin1")
    .map(({ point }) => point)
    .filter((path) => path.startsWith(root === "/" ? root : `${root}/`));
}
