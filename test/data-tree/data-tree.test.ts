/** A tree that was saved comes back exactly, whatever was done to it before, between the phases, and since. */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import {
  appendFileSync,
  chmodSync,
  closeSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import fc from "fast-check";
import { afterAll, afterEach, describe, expect, test } from "vitest";
import { refuseUnfinished, TreeExchange } from "../../src/images/data/exchange-tree.ts";
import { TreeSave, type TreeSaved } from "../../src/images/data/save-tree.ts";
import { openTree, type StoredTree, verifyTree } from "../../src/images/data/stored-tree.ts";
import { foreignUsers, refuseOverlaps } from "../../src/images/data/tree-users.ts";
import { hasCode, RecoveryLineError } from "../../src/model/errors.ts";
import { compile } from "../native/c-build.ts";
import { sized } from "../size.ts";
import { describeTree, differs } from "./judge.ts";
import { Chance, change } from "./random-tree.ts";

const places = [mkdtempSync(join(tmpdir(), "data-tree-")), mkdtempSync("/dev/shm/data-tree-")];
const mounts: string[] = [];
afterAll(() => {
  for (const mount of mounts) spawnSync("umount", ["-l", mount]);
  for (const place of places) rmSync(place, { recursive: true, force: true });
});

/** A small file system of a kind, in a file; or why there can't be one here. */
function mountImage(kind: "xfs" | "btrfs"): string {
  const mount = join(places[0] as string, kind);
  mkdirSync(mount);
  writeFileSync(`${mount}.img`, "");
  truncateSync(`${mount}.img`, 512 << 20);
  for (const words of [
    [`mkfs.${kind}`, "-q", `${mount}.img`],
    ["mount", "-o", "loop", `${mount}.img`, mount],
  ]) {
    const { status, error } = spawnSync(words[0] as string, words.slice(1));
    if (status !== 0)
      throw new RecoveryLineError("RL_NOT_SUPPORTED", `${words.join(" ")}: ${error ?? status}`);
  }
  mounts.push(mount);
  return mount;
}

/** Files that were left alone that long count as quiet here: tests have no two seconds. */
const QUIET_NS = 30_000_000n;

let folders = 0;
function fresh(place = places[0] as string): { root: string; store: string } {
  folders += 1;
  const folder = join(place, String(folders));
  mkdirSync(join(folder, "root"), { recursive: true });
  mkdirSync(join(folder, "store"));
  return { root: join(folder, "root"), store: join(folder, "store") };
}

async function save(
  root: string,
  folder: string,
  before?: StoredTree,
  between: () => void = () => undefined,
): Promise<{ tree: StoredTree; saved: TreeSaved }> {
  const phase = await TreeSave.prepare(root, folder, { quietNs: QUIET_NS, ...(before && { before }) });
  between();
  const saved = await phase.finish();
  return { tree: openTree(folder, saved.sha256), saved };
}

async function putBack(tree: StoredTree, root: string, id = "1"): Promise<void> {
  const exchange = await TreeExchange.stage(tree, root, id);
  await exchange.forward();
  await exchange.end(false);
}

/** Only those of a test's own. */
function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Three saves of a tree that changes before, between and after the phases; two of them are put back. */
async function randomTree(place: string, seed: number): Promise<void> {
  const chance = new Chance(seed);
  const { root, store } = fresh(place);
  const saves: { tree: StoredTree; shall: Map<string, string> }[] = [];
  change(root, chance, 60);
  for (let round = 0; round < 3; round += 1) {
    if (chance.below(2) === 0) await sleep(60);
    const between = (): void => void change(root, chance, chance.below(3) * 10);
    const { tree } = await save(root, join(store, String(round)), saves.at(-1)?.tree, between);
    saves.push({ tree, shall: describeTree(root) });
    await verifyTree(tree);
    change(root, chance, chance.below(30));
  }
  for (const at of [chance.below(3), chance.below(3)]) {
    const { tree, shall } = saves[at]!;
    await putBack(tree, root);
    const difference = differs(describeTree(root), shall, place.endsWith("xfs"));
    if (difference !== undefined) expect.fail(`seed ${seed}, save ${at}: ${difference}`);
    change(root, chance, 40);
  }
  for (const { tree } of saves) await verifyTree(tree);
  expect(readdirSync(join(root, ".."))).toEqual(["root", "store"]);
  rmSync(join(root, ".."), { recursive: true });
}

const RUNS = Number(process.env["DATA_TREE_RUNS"] ?? sized(8, 2));

async function randomTrees(place: string, numRuns: number): Promise<void> {
  await fc.assert(
    fc.asyncProperty(fc.noShrink(fc.nat(2 ** 31)), (seed) => randomTree(place, seed)),
    { numRuns },
  );
}

describe("random trees", () => {
  for (const place of places)
    test(`in ${place.split("/").slice(1, 3).join("/")}`, () => randomTrees(place, RUNS));
});

describe("a file system that clones files", () => {
  for (const kind of ["xfs", "btrfs"] as const)
    test(kind, async (context) => {
      let place = "";
      try {
        place = mountImage(kind);
      } catch (error) {
        if (!hasCode(error, "RL_NOT_SUPPORTED")) throw error;
        context.skip(`${error.code}: ${error.message}`);
      }
      await randomTrees(place, Math.ceil(RUNS / 2));
      const { root, store } = fresh(place);
      const { saved, tree } = await save(root, join(store, "1"), undefined, () =>
        writeFileSync(join(root, "late"), Buffer.alloc(9 << 20, 9)),
      );
      expect(saved).toMatchObject({ dataBytes: 9 << 20, frozenBytes: 0 });
      writeFileSync(join(root, "late"), "other");
      await verifyTree(tree);
    });
});

describe("what has not changed is not copied again", () => {
  test("it shares the stored copy, no block of a live file, and can be told from what has changed", async () => {
    const { root, store } = fresh();
    for (let at = 0; at < 20; at += 1) writeFileSync(join(root, `f${at}`), Buffer.alloc(100_000, at));
    await sleep(60);
    const first = await save(root, join(store, "1"));
    expect(first.saved).toMatchObject({ entries: 21, dataBytes: 20 * 100_352 - 20 * 352, frozenBytes: 0 });
    appendFileSync(join(root, "f3"), "more");
    await sleep(60);
    const second = await save(root, join(store, "2"), first.tree, () =>
      appendFileSync(join(root, "f4"), "x"),
    );
    expect(second.saved.frozenBytes).toBe(100_001);
    const stored = readdirSync(join(store, "2", "files")).map((name) => join(store, "2", "files", name));
    expect(
      stored
        .map((path) => lstatSync(path).nlink)
        .sort()
        .join(""),
    ).toBe("11222222222222222222");
    for (let at = 0; at < 20; at += 1) expect(lstatSync(join(root, `f${at}`)).nlink).toBe(1);
    await verifyTree(first.tree);
    rmSync(first.tree.folder, { recursive: true });
    await verifyTree(second.tree);
  });

  test("only blocks that differ are copied while frozen", async () => {
    const { root, store } = fresh();
    const file = join(root, "database");
    writeFileSync(file, Buffer.alloc(20 << 20, 7));
    const { saved, tree } = await save(root, join(store, "1"), undefined, () => {
      const target = openSync(file, "r+");
      writeSync(target, "other", 5 << 20);
      closeSync(target);
    });
    expect(saved.frozenBytes).toBe(4096);
    await verifyTree(tree);
  });
});

describe("stores through mappings", () => {
  const program = compile("map_store", ["test/data-tree/c/map_store.c"]);

  async function mapper(path: string): Promise<(letters: string) => Promise<void>> {
    const child = spawn(program, [path]);
    children.push(child);
    return async (letters) => {
      for (const letter of letters) {
        child.stdin.write(letter);
        await once(child.stdout, "data");
      }
    };
  }
  const children: ChildProcess[] = [];
  afterEach(() => {
    for (const child of children.splice(0)) child.kill("SIGKILL");
  });

  for (const [what, before, between, since] of [
    ["mapped all the time", "ms", "s", "s"],
    ["mapped between the phases and gone", "", "msu", "msu"],
    ["mapped before, gone at the freeze", "ms", "su", ""],
    ["mapped read-only, writable for moments", "rpsq", "psq", "psq"],
    ["mapped since the first save only", "", "", "ms"],
  ] as const)
    for (const place of places)
      test(`${what}, in ${place.split("/")[1]}`, async () => {
        const { root, store } = fresh(place);
        const file = join(root, "mapped");
        writeFileSync(file, Buffer.alloc(8192, 65));
        const tell = await mapper(file);
        await tell(before);
        await sleep(60);
        const phase = await TreeSave.prepare(root, join(store, "1"), { quietNs: QUIET_NS });
        await tell(between);
        const first = openTree(join(store, "1"), (await phase.finish()).sha256);
        const shall = describeTree(root);
        await tell(since);
        await sleep(60);
        const second = (await save(root, join(store, "2"), first)).tree;
        const later = describeTree(root);
        for (const child of children) child.kill("SIGKILL");
        await putBack(first, root);
        expect(differs(describeTree(root), shall)).toBeUndefined();
        await putBack(second, root);
        expect(differs(describeTree(root), later)).toBeUndefined();
      });
});

describe("an exchange that is cut off anywhere", () => {
  class Cut extends Error {}

  /** Throws at the n-th change. */
  function cutAt(n: number): (what: string) => void {
    let left = n;
    return () => {
      if (left === 0) throw new Cut();
      left -= 1;
    };
  }

  async function scene(
    hasRoot: boolean,
  ): Promise<{ root: string; tree: StoredTree; was: Map<string, string>; shall: Map<string, string> }> {
    const { root, store } = fresh(places[1]); // where syncing costs nothing
    change(root, new Chance(5), 30);
    for (const name of ["both", "gone", "folder/in"]) {
      mkdirSync(dirname(join(root, name)), { recursive: true });
      writeFileSync(join(root, name), `${name} before`);
    }
    utimesSync(root, 1000, 1000);
    const { tree } = await save(root, join(store, "1"));
    const shall = describeTree(root);
    writeFileSync(join(root, "both"), "since");
    rmSync(join(root, "gone"));
    writeFileSync(join(root, "new"), "since");
    writeFileSync(join(root, "folder/in"), "since");
    chmodSync(root, 0o711);
    utimesSync(root, 2000, 2000);
    if (!hasRoot) rmSync(root, { recursive: true });
    return { root, tree, shall, was: hasRoot ? describeTree(root) : new Map() };
  }

  /** Of so many places of a cut one is tried, from `FIRST` on. */
  const STRIDE = sized(1, 3);
  const FIRST = Date.now() % STRIDE;

  /** Runs a way until it comes through without a cut; each call of `act` is a new process. */
  async function eachCut(act: (cut: (what: string) => void) => Promise<void>): Promise<number> {
    for (let n = FIRST; ; n += STRIDE)
      try {
        await act(cutAt(n));
        return n;
      } catch (error) {
        if (!(error instanceof Cut)) throw error;
      }
  }

  async function forwardTo(root: string, tree: StoredTree, cut: (what: string) => void): Promise<void> {
    const exchange = await TreeExchange.stage(tree, root, "1", cut);
    await exchange.forward();
  }

  function clean(root: string): void {
    expect(readdirSync(dirname(root)).filter((name) => name !== "root")).toEqual(["store"]);
  }

  for (const hasRoot of [true, false]) {
    test(`goes forward, ${hasRoot ? "the root is there" : "the root is gone"}`, async () => {
      const steps = await eachCut(async (cut) => {
        const { root, tree, shall } = await scene(hasRoot);
        let wasCut: unknown;
        await forwardTo(root, tree, cut).catch((error: unknown) => {
          wasCut = error;
        });
        if (wasCut !== undefined && TreeExchange.find(root).length === 0)
          await TreeExchange.stage(tree, root, "1");
        const [found] = TreeExchange.find(root);
        const isMixed = found!.step !== "ready" && found!.step !== "whole";
        if (isMixed) expect(() => refuseUnfinished(root)).toThrow(/may be a mixture/);
        await found!.forward();
        expect(differs(describeTree(root), shall)).toBeUndefined();
        await found!.end(false);
        expect(differs(describeTree(root), shall)).toBeUndefined();
        refuseUnfinished(root);
        clean(root);
        if (wasCut !== undefined) throw wasCut;
      });
      expect(steps).toBeGreaterThan(hasRoot ? 12 : 8);
    });

    test(`goes back, also cut off on its way, ${hasRoot ? "the root is there" : "the root is gone"}`, async () => {
      const ways: readonly (readonly [number, number])[] = [
        [1, 0],
        [5, 3],
      ];
      for (const [factor, offset] of hasRoot ? sized(ways, ways.slice(1)) : [[5, 1] as const]) {
        let round = 0;
        await eachCut(async (cut) => {
          const second = (factor * round++ + offset) % 12;
          const { root, tree, was } = await scene(hasRoot);
          let wasCut: unknown;
          await forwardTo(root, tree, cut).catch((error: unknown) => {
            wasCut = error;
          });
          const found = (before?: (what: string) => void): TreeExchange | undefined =>
            TreeExchange.find(root, before)[0];
          await found(cutAt(second))
            ?.back()
            .catch(() => undefined);
          await found()?.back();
          if (hasRoot) expect(differs(describeTree(root), was)).toBeUndefined();
          else if (wasCut === undefined) expect(existsSync(root)).toBe(false);
          if (wasCut !== undefined) throw wasCut;
          clean(root);
        });
      }
    });
  }

  test("forward after it was going back", async () => {
    for (let n = FIRST; n < 12; n += STRIDE) {
      const { root, tree, shall } = await scene(true);
      await forwardTo(root, tree, () => undefined);
      await TreeExchange.find(root, cutAt(n))[0]
        ?.back()
        .catch(() => undefined);
      const [found] = TreeExchange.find(root);
      if (found === undefined) break;
      await found.forward();
      expect(differs(describeTree(root), shall)).toBeUndefined();
    }
  });

  test("a tree that can't be built leaves the old one as it was", async () => {
    const { root, tree, was } = await scene(true);
    const [name] = readdirSync(join(tree.folder, "files"));
    rmSync(join(tree.folder, "files", name!));
    await expect(TreeExchange.stage(tree, root, "1")).rejects.toThrow(/ENOENT/);
    expect(differs(describeTree(root), was)).toBeUndefined();
    clean(root);
  });

  test("what somebody else made meanwhile is kept aside, and the old tree if wanted", async () => {
    const { root, tree, was, shall } = await scene(true);
    const exchange = await TreeExchange.stage(tree, root, "1", (what) => {
      if (what === "enter filling") writeFileSync(join(root, "both"), "a stranger's");
    });
    await exchange.forward();
    expect(differs(describeTree(root), shall)).toBeUndefined();
    const kept = await exchange.end(true);
    const names = new Set([...was.keys()].map((path) => path.split("/")[1]).filter(Boolean));
    expect(readdirSync(kept!, "latin1").sort()).toEqual([...names].sort());
    expect(readdirSync(join(kept!, "..", "extra"))).toHaveLength(1);
    await putBack(tree, root);
    expect(existsSync(kept!)).toBe(true);
  });
});

describe("refused by name", () => {
  test("more than the limit", async () => {
    const { root, store } = fresh();
    const phase = await TreeSave.prepare(root, join(store, "1"));
    writeFileSync(join(root, "late"), Buffer.alloc(3 << 20, 1));
    await expect(phase.finish(2 << 20)).rejects.toMatchObject({
      code: "RL_REFUSED",
      message: expect.stringMatching(
        /more than 2097152 bytes below .*: 1 files with 3145728 bytes have changed/,
      ),
    });
  });

  test("a hard link from outside", async () => {
    const { root, store } = fresh();
    writeFileSync(join(store, "x"), "x");
    linkSync(join(store, "x"), join(root, "x"));
    await expect(TreeSave.prepare(root, join(store, "1"))).rejects.toThrow(
      /root\/x has another name outside of/,
    );
  });

  test("another file system below", async () => {
    await expect(TreeSave.prepare("/dev", join(fresh().store, "1"))).rejects.toThrow(/mounted below \/dev/);
  });

  test("a root that is no folder", async () => {
    const { root, store } = fresh();
    writeFileSync(join(root, "x"), "");
    await expect(TreeSave.prepare(join(root, "x"), join(store, "1"))).rejects.toMatchObject({
      code: "RL_USAGE",
    });
  });

  test("trees that overlap", () => {
    const tree = (process: string, root: string) => ({ process, root });
    refuseOverlaps([tree("p", "/a/b"), tree("q", "/a/bc"), tree("q", "/a/b-c"), tree("r", "/d")]);
    for (const [a, b] of [
      ["/a", "/a"],
      ["/a", "/a/b/c"],
      ["/a/b", "/"],
    ] as const) {
      const all = [tree("p", a), tree("x", "/a-b"), tree("y", "/z"), tree("q", b)];
      expect(() => refuseOverlaps(all)).toThrow(
        / of [pqxy] lies in .* of [pqxy]: two processes would put back the same file/,
      );
    }
  });

  test("processes that have something below it open", async () => {
    const { root } = fresh();
    writeFileSync(join(root, "f"), "");
    const child = spawn("sleep", ["100"], { cwd: root });
    try {
      await once(child, "spawn");
      const here = openSync(join(root, "f"), "r");
      const users = foreignUsers(root, new Set());
      expect(users).toContainEqual({ pid: child.pid, name: "sleep", path: root, writes: false });
      const me = { pid: process.pid, name: expect.any(String), path: join(root, "f") };
      expect(users).toContainEqual({ ...me, writes: false });
      const written = openSync(join(root, "f"), "a");
      expect(foreignUsers(root, new Set())).toContainEqual({ ...me, writes: true });
      for (const file of [here, written]) closeSync(file);
      expect(foreignUsers(root, new Set([child.pid!]))).toEqual([]);
    } finally {
      child.kill();
    }
  });

  test("every damaged byte and file of a stored tree", async () => {
    const { root, store } = fresh();
    writeFileSync(join(root, "a"), "hello");
    mkdirSync(join(root, "d"));
    writeFileSync(join(root, "d", "b"), Buffer.alloc(3000, 3));
    const { tree, saved } = await save(root, join(store, "1"));
    for (const name of readdirSync(join(tree.folder, "files"))) {
      const path = join(tree.folder, "files", name);
      const bytes = readFileSync(path);
      for (let at = 0; at < bytes.length; at += 97) {
        writeFileSync(
          path,
          bytes.map((byte, index) => (index === at ? byte ^ 1 : byte)),
        );
        await expect(verifyTree(tree)).rejects.toThrow(/differs from its checksum \(.*\/root\//);
      }
      writeFileSync(path, bytes.subarray(1));
      await expect(verifyTree(tree)).rejects.toThrow(/is not the file of/);
      rmSync(path);
      await expect(verifyTree(tree)).rejects.toThrow(/is missing/);
      writeFileSync(path, bytes);
    }
    await verifyTree(tree);
    writeFileSync(join(tree.folder, "files", "other"), "");
    await expect(verifyTree(tree)).rejects.toThrow(/is not in the tree/);
    appendFileSync(join(tree.folder, "tree.jsonl"), " ");
    expect(() => openTree(tree.folder, saved.sha256)).toThrow(/differs from its checksum/);
    rmSync(join(tree.folder, "tree.jsonl"));
    expect(() => openTree(tree.folder, saved.sha256)).toThrow(/is missing/);
  });
});
