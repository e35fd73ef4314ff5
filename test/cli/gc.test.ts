/** `gc` on a real log with image folders: removes no more than it says, and survives being killed at any moment. */
import { spawn } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import { afterEach, beforeAll, expect, test } from "vitest";
import { EventColumns } from "../../src/format/event-columns.ts";
import { leftoverImages, removeImages } from "../../src/gc/collect-images.ts";
import { settledImages } from "../../src/images/image-store.ts";
import { EventLog } from "../../src/log/event-log.ts";
import type { LineEntry } from "../../src/model/recovery-line.ts";
import { evidenceOf } from "../property/laws-executions.ts";
import { sized } from "../size.ts";
import { build, main, run } from "./cli.ts";
import { append, emptyHome, sealedImage, taken } from "./recorded-home.ts";

const homes: string[] = [];
beforeAll(build);
afterEach(() => {
  for (const home of homes.splice(0)) rmSync(home, { recursive: true });
});

const FILES = 3;
const PROCESSES = ["a", "b"];

/** Randell's ladder of domino rungs, then checkpoints that hold: everything on the ladder is obsolete. */
function ladder(rungs: number): string {
  const lines: object[] = [];
  for (let k = 0; k < rungs; k += 1) {
    const range = { begin: k, end: k + 1 };
    lines.push(
      { type: "send", process: "a", channel: "ab", ...range },
      { type: "receive", process: "b", channel: "ab", ...range },
      { type: "checkpoint", process: "b", checkpoint: k + 1 },
      { type: "send", process: "b", channel: "ba", ...range },
      { type: "receive", process: "a", channel: "ba", ...range },
      { type: "checkpoint", process: "a", checkpoint: k + 1 },
    );
  }
  for (const process of PROCESSES) lines.push({ type: "checkpoint", process, checkpoint: rungs + 1 });
  return lines.map((line) => `${JSON.stringify(line)}\n`).join("");
}

async function logOf(events: string, checkpoints: number): Promise<string> {
  const home = mkdtempSync(join(tmpdir(), "rl-gc-"));
  homes.push(home);
  expect((await run(["import", "app", "--from", "-", "--log", home], events)).code).toBe(0);
  for (const process of PROCESSES)
    for (let index = 1; index <= checkpoints; index += 1) storeImage(home, process, index);
  return home;
}

function imageFolder(home: string, process: string, index: number | string): string {
  return join(home, "app", "images", process, String(index));
}

function storeImage(home: string, process: string, index: number): void {
  mkdirSync(join(imageFolder(home, process, index), "files"), { recursive: true });
  for (let file = 0; file < FILES; file += 1)
    writeFileSync(join(imageFolder(home, process, index), "files", `${file}`), "pages");
}

/** Images under their names; each of them must be whole. */
function wholeImages(home: string): string[] {
  return PROCESSES.flatMap((process) =>
    readdirSync(join(home, "app", "images", process))
      .filter((name) => !name.startsWith("."))
      .map((name) => {
        expect(readdirSync(join(imageFolder(home, process, name), "files")).length).toBe(FILES);
        return `${process}/${name}`;
      }),
  ).sort();
}

function leftovers(home: string): string[] {
  return PROCESSES.flatMap((process) => readdirSync(join(home, "app", "images", process))).filter((name) =>
    name.startsWith("."),
  );
}

async function linesOf(home: string): Promise<LineEntry[][]> {
  const lines: LineEntry[][] = [];
  for (const failed of [["a"], ["b"], ["a,b"]]) {
    const { stdout } = await run(["compute", "app", "--log", home, "--json", "--failed", ...failed]);
    lines.push((JSON.parse(stdout) as { line: LineEntry[] }).line);
  }
  return lines;
}

test("without --apply nothing changes; with it exactly the obsolete images go, and every line stays restorable", async () => {
  const home = await logOf(ladder(3), 4);
  const before = await linesOf(home);
  const all = wholeImages(home);
  const listed = JSON.parse((await run(["gc", "app", "--log", home, "--json"])).stdout);
  expect(wholeImages(home)).toEqual(all);
  const gone = listed.obsolete.map(({ process, checkpoint }: LineEntry) => `${process}/${checkpoint}`);
  expect(gone.sort()).toEqual(["a/1", "a/2", "a/3", "b/1", "b/2", "b/3"]);
  expect(listed.bytes).toBe(6 * FILES * "pages".length);
  expect((await run(["gc", "app", "--log", home, "--apply"])).code).toBe(0);
  expect(wholeImages(home)).toEqual(all.filter((image) => !gone.includes(image)));
  expect(leftovers(home)).toEqual([]);
  expect(await linesOf(home)).toEqual(before);
  for (const { process, checkpoint } of before.flat())
    if (checkpoint) expect(existsSync(imageFolder(home, process, checkpoint))).toBe(true);
  expect((await run(["verify", "app", "--log", home])).code).toBe(0);
});

test("the newest images stay that a restart can come back by, where newer checkpoints have none", async () => {
  const taken = (process: string, checkpoint: number, has = true) => ({
    type: "checkpoint",
    process,
    checkpoint,
    ...(has ? { image: `images/${process}/${checkpoint}#${"0".repeat(64)}` } : {}),
  });
  const range = { channel: "ab", begin: 0, end: 1 };
  const lines: object[] = [
    taken("a", 1),
    taken("b", 1),
    { type: "send", process: "a", ...range },
    { type: "receive", process: "b", ...range },
    taken("a", 2, false),
    taken("b", 2),
  ];
  const obsoleteOf = async (events: object[], apply: boolean): Promise<string[]> => {
    const home = await logOf(events.map((event) => `${JSON.stringify(event)}\n`).join(""), 3);
    const told = await run(["gc", "app", "--log", home, "--json", ...(apply ? ["--apply"] : [])]);
    const { obsolete } = JSON.parse(told.stdout);
    return obsolete.map(({ process, checkpoint }: LineEntry) => `${process}/${checkpoint}`);
  };
  // To a's image goes whoever got what a had sent after it.
  expect(await obsoleteOf(lines, true)).toEqual([]);
  expect(await obsoleteOf([...lines, taken("a", 3)], false)).toEqual(["a/1", "a/2", "b/1"]);
});

test("images that a rollback undid and that were never recorded go, once nobody can record them and no restart is unfinished", async () => {
  const home = emptyHome();
  homes.push(home);
  const stored = (): string[] => readdirSync(imageFolder(home, "s", "."), "utf8").sort();
  const left = async (...flags: string[]): Promise<number[]> =>
    JSON.parse((await run(["gc", "app", "--log", home, "--json", ...flags])).stdout).leftovers.map(
      ({ checkpoint }: LineEntry) => checkpoint,
    );
  const taking = await sealedImage(home, "t", 1);
  for (const checkpoint of [1, 2, 3]) await append(home, [await taken(home, "s", checkpoint)]);
  await append(home, [{ type: "gap", process: "t" }]);
  await append(home, [{ type: "rollback", process: "s", checkpoint: 1 }]);
  const died = await sealedImage(home, "s", 4);
  expect(await left()).toEqual([]); // of both a checkpoint is under way
  died.image.release();
  expect(await left()).toEqual([2, 3, 4]);
  taking.image.release();
  const restart = join(home, "app", "restart");
  mkdirSync(restart);
  writeFileSync(join(restart, "journal.json"), "{}");
  expect(await left("--apply")).toEqual([]);
  rmSync(restart, { recursive: true });
  const text = (await run(["gc", "app", "--log", home])).stdout;
  expect(text).toMatch(/s +2 +- +undone, or never recorded +\d+\n/);
  expect(text).toContain("4 images, ");
  expect(stored()).toEqual(["1", "2", "3", "4"]);
  expect(await left("--apply")).toEqual([2, 3, 4, 1]);
  expect(stored()).toEqual(["1"]);
  expect(await left("--apply")).toEqual([]);
  const verified = JSON.parse((await run(["verify", "app", "--log", home, "--json"])).stdout);
  expect(verified).toMatchObject({ outcome: "clean", images: 1 });
});

test("a number that was given again since the look keeps its new image", async () => {
  const home = emptyHome();
  homes.push(home);
  const dir = join(home, "app");
  (await sealedImage(home, "s", 4)).image.release();
  const settled = await settledImages(join(dir, "images"));
  const left = await leftoverImages(
    dir,
    settled,
    evidenceOf([{ type: "checkpoint", process: "s", checkpoint: 1, usable: true }]),
  );
  expect(left).toMatchObject([{ process: "s", checkpoint: 4 }]);
  (await sealedImage(home, "s", 4)).image.release(); // what lay there is out of its way
  mkdirSync(join(dir, "gc"), { mode: 0o700, recursive: true });
  await removeImages(dir, "app", left);
  expect(readdirSync(imageFolder(home, "s", "."))).toEqual(["4"]);
});

test("killed at any moment it leaves whole images and a usable log, and the next run ends its work", async () => {
  const rungs = 150;
  const home = await logOf(ladder(rungs), rungs + 1);
  const before = await linesOf(home);
  const retained = [`a/${rungs + 1}`, `b/${rungs + 1}`];
  let cutOff = 0;
  for (const delayMs of sized([0, 2, 20], [0, 2])) {
    for (const process of PROCESSES)
      for (let index = 1; index <= rungs; index += 1) storeImage(home, process, index);
    if (await killedWhileRemoving(home, delayMs)) cutOff += 1;
    // Whoever looks now sees each image whole or not at all.
    expect(wholeImages(home)).toEqual(expect.arrayContaining(retained));
    const again = await run(["gc", "app", "--log", home, "--apply"]);
    expect(again.code, again.stderr).toBe(0);
    expect(wholeImages(home)).toEqual(retained);
    expect(leftovers(home)).toEqual([]);
  }
  expect(cutOff).toBeGreaterThan(0);
  expect(await linesOf(home)).toEqual(before);
}, 120_000);

/** Kills a run this long after its journal stands. True if it was cut off before its end. */
async function killedWhileRemoving(home: string, delayMs: number): Promise<boolean> {
  const journal = join(home, "app", "gc", "journal.json");
  const child = spawn(process.execPath, [main, "gc", "app", "--log", home, "--apply"], { stdio: "ignore" });
  let ended = false;
  const end = new Promise<void>((resolve) => child.on("close", () => resolve())).then(() => {
    ended = true;
  });
  while (!ended && !existsSync(journal)) await setTimeout(1);
  if (delayMs > 0) await setTimeout(delayMs);
  child.kill("SIGKILL");
  await end;
  return existsSync(journal);
}

test("an index that was taken again since a crash is not removed on the old journal's word", async () => {
  const home = await logOf(ladder(1), 2);
  expect((await run(["gc", "app", "--log", home])).code).toBe(0);
  mkdirSync(join(home, "app", "gc"), { mode: 0o700, recursive: true });
  const images = [
    { process: "a", checkpoint: 2 },
    { process: "b", checkpoint: 1 },
  ];
  writeFileSync(
    join(home, "app", "gc", "journal.json"),
    JSON.stringify({ format: 1, application: "app", images }),
  );
  expect((await run(["gc", "app", "--log", home, "--apply"])).code).toBe(0);
  expect(wholeImages(home)).toEqual(["a/2", "b/2"]);
  expect(existsSync(join(home, "app", "gc", "journal.json"))).toBe(false);
});

test("what was set aside on a full disk, without a journal, goes with the next run", async () => {
  const home = await logOf(ladder(1), 2);
  mkdirSync(join(imageFolder(home, "a", ".gc-7"), "files"), { recursive: true });
  const { stdout, code } = await run(["gc", "app", "--log", home, "--apply", "--json"]);
  expect([code, JSON.parse(stdout).finished, leftovers(home)]).toEqual([0, 1, []]);
});

test("a damaged journal removes nothing and is named", async () => {
  const home = await logOf(ladder(1), 2);
  mkdirSync(join(home, "app", "gc"), { mode: 0o700, recursive: true });
  const journal = join(home, "app", "gc", "journal.json");
  writeFileSync(journal, '{"format":1,"images":[{"process":"../..","checkpoint":1}]}');
  const { code, stderr } = await run(["gc", "app", "--log", home, "--apply"]);
  expect(code).toBe(5);
  expect(stderr).toContain(journal);
  expect(wholeImages(home)).toEqual(["a/1", "a/2", "b/1", "b/2"]);
  expect(readFileSync(journal, "utf8")).toContain("..");
});

test("--apply on an events file is wrong use, an unknown application leaves nothing behind", async () => {
  expect((await run(["gc", "--from", "-", "--apply"], ladder(1))).code).toBe(2);
  const home = await logOf(ladder(1), 1);
  expect((await run(["gc", "other", "--log", home, "--apply"])).code).toBe(2);
  expect(existsSync(join(home, "other"))).toBe(false);
});

test("gc --apply removes whole segments of the log below every line; compute answers as before, verify and export tell", async () => {
  const home = mkdtempSync(join(tmpdir(), "recovery-line-retention-"));
  homes.push(home);
  const log = await EventLog.open(join(home, "app"), { create: true, segmentBytes: 4096 });
  for (let round = 0; round < 60; round += 1)
    for (const process of PROCESSES) {
      const channel = "ab";
      const [begin, end] = [round * 40, round * 40 + 40];
      const columns = new EventColumns(process);
      const type = process === "a" ? "send" : "receive";
      for (let at = begin; at < end; at += 1)
        columns.push({ type, process, channel, begin: at, end: at + 1 });
      const offsets = new Map([[channel, end]]);
      const cut = {
        sent: type === "send" ? offsets : new Map(),
        received: type === "send" ? new Map() : offsets,
      };
      columns.push({ type: "checkpoint", process, checkpoint: round + 1, usable: true, cut });
      await log.append(columns);
      await log.commit();
    }
  await log.close();
  const compute = async () => JSON.parse((await run(["compute", "app", "--log", home, "--json"])).stdout);
  const before = await compute();
  const lines = async () => (await run(["export", "app", "--log", home])).stdout.trim().split("\n").length;
  expect(await lines()).toBe(60 * 2 * 41);
  const { logs } = JSON.parse((await run(["gc", "app", "--log", home, "--apply", "--json"])).stdout);
  expect(logs).toMatchObject([{ log: home }]);
  expect(logs[0].bytes).toBeGreaterThan(10_000);
  const { line, inTransit, outcome, evidence } = before;
  expect(await compute()).toMatchObject({ line, inTransit, outcome, evidence });
  expect(await lines()).toBeLessThan(60 * 41);
  const { stdout, code } = await run(["verify", "app", "--log", home]);
  expect(code).toBe(0);
  expect(stdout).toMatch(/removed by gc/);
  const again = await run(["gc", "app", "--log", home, "--apply"]);
  expect(again.stdout).toContain("no segment of the log removed");
});
