/**
 * A small log, damaged in every way a disk damages files, and read with LevelDB, as is done where the addon is missing: each damage is
 * detected, or harmless; never silent. test/damage does it all, without LevelDB, as is done where the addon is there.
 *
 * All bits of the anchor and of CURRENT are flipped and all their truncations tried (one of eleven by `npm test`). In the other files (WAL, tables, MANIFEST,
 * LOG) opening LevelDB costs milliseconds a trial, so bits and lengths are sampled by a fixed seed, half of the bits from what is
 * LevelDB's own; RECOVERY_LINE_DAMAGE_TRIALS sets how many.
 */
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { readAnchor } from "../../src/log/anchor-file.ts";
import { BlockStore } from "../../src/log/block-store.ts";
import { EventLog } from "../../src/log/event-log.ts";
import { corrupt } from "../../src/log/log-paths.ts";
import { checkFolders, recover } from "../../src/log/recover.ts";
import { SegmentShelf } from "../../src/log/segment-shelf.ts";
import { hasCode } from "../../src/model/errors.ts";
import { readFiles } from "../damage/home.ts";
import { sized } from "../size.ts";
import { columnsOf, commitOf, sends } from "./log-rig.ts";

const TRIALS = Number(process.env["RECOVERY_LINE_DAMAGE_TRIALS"] ?? sized(800, 160));
/** Of the smallest files. */
const STEP = sized(1, 11);
/** Size of the log, in 64 KiB. */
const SCALE = Number(process.env["RECOVERY_LINE_DAMAGE_SCALE"] ?? 1);
/** In memory where there is room: no trial needs a disk. */
const root = mkdtempSync(join(existsSync("/dev/shm") ? "/dev/shm" : tmpdir(), "recovery-line-damage-"));
const dir = join(root, "app");
/** The files of the whole log, by path inside it. */
let files: ReadonlyMap<string, Uint8Array>;
let truth = "";

/** Everything a reader can learn from the log that LevelDB opens. */
async function content(): Promise<string> {
  const anchor = await readAnchor(dir);
  if (anchor === undefined) throw corrupt(dir, "the anchor is missing"); // as open-log.ts does where there are segments
  const shelf = new SegmentShelf(dir, true);
  try {
    await checkFolders(dir, anchor, shelf);
    const { number } = anchor.segments.at(-1)!;
    const { state } = await shelf.use(number, (segment) => recover(dir, anchor, segment));
    const { application, firstChain, lastChain } = anchor;
    const hash = createHash("sha256");
    hash.update(
      JSON.stringify([application, firstChain, lastChain, state.get("ring"), [...state.heads].sort()]),
    );
    for await (const { bytes } of new BlockStore(dir, shelf, () => anchor).blocks()) hash.update(bytes);
    return hash.digest("hex");
  } finally {
    await shelf.closeAll();
  }
}

/** Two segments; the newest has tables from an earlier opening and a WAL; about 64 KiB in all. */
beforeAll(async () => {
  let log = await EventLog.open(dir, { create: true });
  for (let n = 0; n < 16 * SCALE; n += 1) await commitOf(log, sends("p", n * 200, 200));
  await log.rotate();
  const fill = async (first: number): Promise<void> => {
    for (let n = first; n < first + 12 * SCALE; n += 1) {
      log.putState("ring", { position: n });
      await commitOf(log, sends("q", n * 250, 250), columnsOf([{ type: "stable", process: "p" }]));
    }
  };
  await fill(0);
  await log.close();
  log = await EventLog.open(dir, { create: false });
  await fill(12 * SCALE);
  await log.close();
  files = readFiles(dir);
  truth = await content();
});
afterAll(() => rmSync(root, { recursive: true, force: true }));

/** Puts the log back with one file changed (undefined: gone). */
function restore(changed: string, bytes: Uint8Array | undefined): void {
  rmSync(dir, { recursive: true, force: true });
  mkdirSync(dir, { mode: 0o700 });
  for (const [name, whole] of files) {
    const content = name === changed ? bytes : whole;
    mkdirSync(dirname(join(dir, name)), { recursive: true, mode: 0o700 });
    if (content !== undefined) writeFileSync(join(dir, name), content, { mode: 0o600 });
  }
}

/** "detected", "harmless", or what went wrong. */
async function verdict(): Promise<string> {
  try {
    return (await content()) === truth ? "harmless" : "SILENT";
  } catch (error) {
    return hasCode(error, "RL_CORRUPT_LOG") ? "detected" : `WRONG ERROR ${String(error)}`;
  }
}

type Tally = Map<string, number>;
const failures: string[] = [];

async function trial(tally: Tally, name: string, bytes: Uint8Array | undefined, what: string): Promise<void> {
  restore(name, bytes);
  const result = await verdict();
  tally.set(result, (tally.get(result) ?? 0) + 1);
  if (result !== "detected" && result !== "harmless") failures.push(`${name} ${what}: ${result}`);
}

function flipped(bytes: Uint8Array, bit: number): Uint8Array {
  const copy = Uint8Array.from(bytes);
  copy[bit >> 3]! ^= 1 << (bit & 7);
  return copy;
}

const small = (name: string): boolean => name === "anchor" || name.endsWith("CURRENT");
const sizeOf = (names: readonly string[]): number =>
  names.reduce((sum, name) => sum + files.get(name)!.length, 0);
const show = (tally: Tally): string => [...tally].map(([result, count]) => `${count} ${result}`).join(", ");

test("the log is of the size that is meant, with a WAL and tables", () => {
  const names = [...files.keys()];
  expect(sizeOf(names)).toBeGreaterThan(56 * 1024);
  expect(names.some((name) => name.endsWith(".ldb"))).toBe(true);
  expect(
    names.some(
      (name) => name.startsWith("segments/000002") && name.endsWith(".log") && files.get(name)!.length > 0,
    ),
  ).toBe(true);
});

test(`one bit of ${STEP} of the anchor and of CURRENT`, async () => {
  const tally: Tally = new Map();
  for (const [name, bytes] of files) {
    if (!small(name)) continue;
    for (let bit = 0; bit < bytes.length * 8; bit += STEP)
      await trial(tally, name, flipped(bytes, bit), `bit ${bit}`);
    for (let length = 0; length < bytes.length; length += STEP)
      await trial(tally, name, bytes.subarray(0, length), `cut to ${length}`);
  }
  console.log(`anchor and CURRENT, all bits and lengths: ${show(tally)}`);
  expect(failures).toEqual([]);
});

/** Bits that are LevelDB's own, not ours: what stands before each block, and the end of a table. A hit there must not crash it. */
function structureBits(name: string): number[] {
  const bytes = Buffer.from(files.get(name)!);
  const own = new Set<number>();
  for (let at = bytes.indexOf("RRLB"); at >= 0; at = bytes.indexOf("RRLB", at + 1))
    for (let byte = Math.max(0, at - 24); byte < at; byte += 1) own.add(byte);
  const tail = name.endsWith(".ldb") ? 1200 : 0;
  for (let byte = Math.max(0, bytes.length - tail); byte < bytes.length; byte += 1) own.add(byte);
  return [...own].flatMap((byte) => [0, 1, 2, 3, 4, 5, 6, 7].map((bit) => byte * 8 + bit));
}

/** At most `count` elements, one of each of `count` equal parts, chosen by a fixed seed. */
function sample(length: number, count: number): number[] {
  if (count >= length) return Array.from({ length }, (_, n) => n);
  let seed = 12345;
  return Array.from({ length: count }, (_, n) => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    const from = Math.floor((n * length) / count);
    const to = Math.max(from + 1, Math.floor(((n + 1) * length) / count));
    return from + (seed % (to - from));
  });
}

const others = (): string[] =>
  [...files.keys()].filter((name) => !small(name) && files.get(name)!.length > 0);

test(`${TRIALS} flipped bits of the other files: half anywhere, half in LevelDB's own structure`, async () => {
  const names = others();
  const tally: Tally = new Map();
  const structure = names.flatMap((name) => structureBits(name).map((bit) => [name, bit] as const));
  const anywhere = names.flatMap((name) =>
    sample(files.get(name)!.length * 8, 20_000).map((bit) => [name, bit] as const),
  );
  for (const pool of [structure, anywhere])
    for (const index of sample(pool.length, TRIALS / 2)) {
      const [name, bit] = pool[index]!;
      await trial(tally, name, flipped(files.get(name)!, bit), `bit ${bit}`);
    }
  console.log(`of ${sizeOf(names) * 8} bits, ${structure.length} of them structure: ${show(tally)}`);
  expect(failures).toEqual([]);
  expect(tally.get("detected")).toBeGreaterThan(tally.get("harmless") ?? 0);
}, 7_200_000);

test(`${TRIALS / 4} truncations of the other files`, async () => {
  const names = others();
  const tally: Tally = new Map();
  const lengths = names.flatMap((name) =>
    Array.from(files.get(name)!, (_, length) => [name, length] as const),
  );
  for (const index of sample(lengths.length, TRIALS / 4)) {
    const [name, length] = lengths[index]!;
    await trial(tally, name, files.get(name)!.subarray(0, length), `cut to ${length}`);
  }
  console.log(`of ${lengths.length} lengths: ${show(tally)}`);
  expect(failures).toEqual([]);
}, 7_200_000);

test("every file removed, one at a time; folders removed", async () => {
  const results = new Map<string, string>();
  for (const name of files.keys()) {
    restore(name, undefined);
    results.set(name, await verdict());
  }
  for (const [name, result] of results) {
    const needed = !/LOG$|LOG\.old$|LOCK$|^lock$/.test(name) && files.get(name)!.length > 0;
    expect([name, result]).toEqual([name, needed ? "detected" : "harmless"]);
  }
  for (const gone of ["segments/000001", "segments/000002", "segments"]) {
    restore("", undefined);
    rmSync(join(dir, gone), { recursive: true });
    expect([gone, await verdict()]).toEqual([gone, "detected"]);
  }
});

test("an owner finds the same damage when it opens or reads, and never adds to a damaged end", async () => {
  const wal = [...files.keys()].findLast(
    (name) => name.startsWith("segments/000002") && name.endsWith(".log"),
  )!;
  const bytes = files.get(wal)!;
  restore(wal, bytes.subarray(0, bytes.length - 10));
  await expect(EventLog.open(dir, { create: true })).rejects.toMatchObject({ code: "RL_CORRUPT_LOG" });
  restore("anchor", undefined);
  await expect(EventLog.open(dir, { create: true })).rejects.toMatchObject({ code: "RL_CORRUPT_LOG" });
  const current = "segments/000002/CURRENT";
  restore(current, undefined);
  await expect(EventLog.open(dir, { create: true })).rejects.toMatchObject({ code: "RL_CORRUPT_LOG" });
  expect(statSync(join(dir, "anchor")).size).toBe(files.get("anchor")!.length);
});
