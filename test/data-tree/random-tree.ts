/** Trees and what programs do to them, by chance. */
import { spawnSync } from "node:child_process";
import {
  appendFileSync,
  chmodSync,
  chownSync,
  closeSync,
  lchownSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { native } from "../../src/native/binding.ts";

/** mulberry32: the same numbers for the same seed. */
export class Chance {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  below(limit: number): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) % limit;
  }

  of<T>(list: readonly T[]): T {
    return list[this.below(list.length)] as T;
  }

  bytes(length: number): Buffer {
    const words = Uint32Array.from({ length: Math.ceil(length / 4) }, () => this.below(2 ** 32));
    return Buffer.from(words.buffer, 0, length);
  }
}

/** Does `count` things below `root`, which is there. Returns what it did, for a failed test. */
export function change(root: string, chance: Chance, count: number): string[] {
  const done: string[] = [];
  for (let at = 0; at < count; at += 1) {
    const [what, act] = chance.of(ACTS);
    const path = somePath(root, chance);
    try {
      if (OPENS.has(what) && !mayBeOpened(path)) continue;
      act(path, chance, root);
      done.push(`${what} ${path.toString("latin1").slice(root.length)}`);
    } catch (error) {
      if (
        (error as NodeJS.ErrnoException).code === undefined &&
        (error as NodeJS.ErrnoException).errno === undefined
      )
        throw error;
    }
  }
  return done;
}

/** Opening a fifo would wait for its other end, a device would act. */
function mayBeOpened(path: Buffer): boolean {
  const stat = statSync(path, { throwIfNoEntry: false });
  return stat === undefined || stat.isFile();
}

function below(folder: Buffer, name: Buffer | string): Buffer {
  return Buffer.concat([folder, Buffer.from("/"), Buffer.from(name as string)]);
}

function names(folder: Buffer): Buffer[] {
  return (readdirSync(folder, { encoding: "buffer" }) as unknown as Buffer[]).sort(Buffer.compare);
}

/** One that is there, or could be. */
function somePath(root: string, chance: Chance): Buffer {
  let folder: Buffer = Buffer.from(root);
  for (let depth = 0; depth < 4; depth += 1) {
    const found = names(folder);
    if (found.length === 0 || chance.below(4) === 0) break;
    const next = below(folder, chance.of(found));
    if (!lstatSync(next).isDirectory()) return chance.below(3) === 0 ? below(folder, newName(chance)) : next;
    if (chance.below(4) === 0) return next;
    folder = next;
  }
  return below(folder, newName(chance));
}

function newName(chance: Chance): Buffer {
  const odd = ["a b", "ä", "new\nline", "\\134", ".hidden", "'\"", "x".repeat(200)];
  if (chance.below(6) === 0) return Buffer.from(chance.of(odd));
  if (chance.below(12) === 0) return Buffer.from([0xff, 0xfe, 0x41 + chance.below(26)]);
  return Buffer.from(`n${chance.below(12)}`);
}

/** A file with holes: pieces of data at some blocks. */
function sparse(path: Buffer, chance: Chance): void {
  const file = openSync(path, "a+");
  closeSync(file);
  const target = openSync(path, "r+");
  for (let piece = chance.below(4); piece >= 0; piece -= 1)
    writeSync(target, chance.bytes(1 + chance.below(9000)), 0, undefined, 4096 * chance.below(600));
  closeSync(target);
  if (chance.below(2) === 0) truncateSync(path, chance.below(3_000_000));
}

function attribute(path: Buffer, chance: Chance): void {
  const name = chance.of(["user.a", "user.b", "trusted.c", "security.d"]);
  native().setFileAttribute(path, name, chance.below(3) === 0 ? undefined : chance.bytes(chance.below(40)));
}

/** Names that are no UTF-8 get none. */
function acl(path: Buffer, chance: Chance): void {
  if (lstatSync(path).isSymbolicLink()) return;
  const rule = chance.of(["u:1234:rwx", "g:77:r-x", "m::r-x"]);
  spawnSync("setfacl", ["-m", rule, path.toString("utf8")], { stdio: "ignore" });
  if (lstatSync(path).isDirectory())
    spawnSync("setfacl", ["-d", "-m", rule, path.toString("utf8")], { stdio: "ignore" });
}

const OPENS = new Set(["write", "empty", "append", "overwrite", "cut", "sparse", "big"]);

type Act = (path: Buffer, chance: Chance, root: string) => void;

const ACTS: readonly (readonly [string, Act])[] = [
  ["write", (path, chance) => writeFileSync(path, chance.bytes(chance.below(6000)))],
  ["empty", (path) => writeFileSync(path, "")],
  ["append", (path, chance) => appendFileSync(path, chance.bytes(1 + chance.below(5000)))],
  ["overwrite", (path, chance) => overwrite(path, chance)],
  ["cut", (path, chance) => truncateSync(path, chance.below(1_500_000))],
  ["sparse", sparse],
  ["sparse", sparse],
  ["big", (path, chance) => writeFileSync(path, Buffer.alloc(chance.below(2_500_000), chance.below(256)))],
  ["folder", (path) => mkdirSync(path)],
  ["folder", (path) => mkdirSync(path)],
  ["folder", (path) => mkdirSync(path)],
  ["symlink", (path, chance) => symlinkSync(chance.of(["n1", "/nowhere/x", "n2/../n3", "ä\u00ff"]), path)],
  ["fifo", (path) => native().makeNode(path, 0o010640, 0)],
  ["socket", (path) => native().makeNode(path, 0o140600, 0)],
  ["device", (path, chance) => native().makeNode(path, chance.of([0o020600, 0o060600]), 0x103)],
  ["link", (path, chance, root) => linkSync(somePath(root, chance), path)],
  ["link", (path, chance, root) => linkSync(somePath(root, chance), path)],
  ["rename", (path, chance, root) => renameSync(path, somePath(root, chance))],
  ["rename", (path, chance, root) => renameSync(path, somePath(root, chance))],
  ["unlink", (path) => unlinkSync(path)],
  [
    "remove",
    (path, chance) => (chance.below(3) === 0 ? rmSync(path, { recursive: true }) : unlinkSync(path)),
  ],
  [
    "mode",
    (path, chance) => (lstatSync(path).isSymbolicLink() ? undefined : chmodSync(path, chance.below(0o10000))),
  ],
  ["owner", (path, chance) => lchownSync(path, chance.below(2000), chance.below(2000))],
  ["owner and mode", (path, chance) => ownerAndMode(path, chance)],
  ["times", (path, chance) => times(path, chance)],
  ["root's times", (_, chance, root) => utimesSync(root, chance.below(1e9), chance.below(1e9))],
  ["attribute", attribute],
  ["attribute", attribute],
  ["acl", acl],
];

function overwrite(path: Buffer, chance: Chance): void {
  const file = openSync(path, "r+");
  writeSync(file, chance.bytes(1 + chance.below(3000)), 0, undefined, chance.below(1_000_000));
  closeSync(file);
}

function ownerAndMode(path: Buffer, chance: Chance): void {
  if (lstatSync(path).isSymbolicLink()) return;
  chownSync(path, chance.below(2000), chance.below(2000));
  chmodSync(path, 0o6755);
}

function times(path: Buffer, chance: Chance): void {
  const ns = (): bigint =>
    BigInt(chance.below(2 ** 31)) * 1_000_000_000n + BigInt(chance.below(1_000_000_000));
  native().setFileTimes(path, ns(), chance.below(8) === 0 ? -ns() : ns());
}
