/** What the campaign kills besides the writer of a log, and what must be there afterwards. */
import { ok, deepStrictEqual as same } from "node:assert";
import { cpSync, existsSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { finishRemoval } from "../../src/gc/collect-images.ts";
import { EventLog } from "../../src/log/event-log.ts";
import { finishImport } from "../../src/log/import-journal.ts";
import { lockCollection } from "../../src/log/log-lock.ts";
import { verifyLog } from "../../src/log/verify-log.ts";
import { hasCode } from "../../src/model/errors.ts";
import { storedEvents } from "../unit/log-rig.ts";
import type { Scenario } from "./kill-points.ts";

function numbers(said: string, word: string): number[] {
  return said
    .split("\n")
    .flatMap((line) => (line.startsWith(`${word} `) ? [Number(line.split(" ")[1])] : []));
}

interface Images {
  /** Newest checkpoint that was made, and the newest one whose removal was asked for, and done. */
  readonly made: number;
  readonly asked: number;
  readonly removed: number;
}

/** Images that nobody asked to remove are whole; those that were are whole or gone, and gone once it was acknowledged. */
async function checkImages(dir: string, before: Images, said: string): Promise<Images> {
  const made = Math.max(before.made, ...numbers(said, "made"));
  const asked = Math.max(before.asked, ...numbers(said, "removing"));
  const removed = Math.max(before.removed, ...numbers(said, "removed"));
  await onCopy(dir, (copy) => judgeImages(copy, { made, asked, removed }));
  return { made, asked, removed };
}

/** What the next life clears up, it clears up itself. */
async function onCopy<T>(dir: string, work: (copy: string) => Promise<T>): Promise<T> {
  const copy = `${dir}-copy`;
  if (existsSync(dir)) cpSync(dir, copy, { recursive: true });
  return work(copy).finally(() => rmSync(copy, { recursive: true, force: true }));
}

async function judgeImages(dir: string, { made, asked, removed }: Images): Promise<void> {
  if (!existsSync(dir)) return;
  const unlock = await lockCollection(dir);
  await finishRemoval(dir).finally(unlock);
  ok(!existsSync(join(dir, "gc", "journal.json")), "a journal is left");
  for (const process of ["a", "b"]) {
    const folder = join(dir, "images", process);
    const names = existsSync(folder) ? readdirSync(folder).filter((name) => !name.startsWith(".new-")) : [];
    for (const name of names) {
      ok(/^\d+$/.test(name), `${name} is left`);
      for (const file of ["core", "pages"])
        same(readFileSync(join(folder, name, file), "utf8"), `${process} ${name} ${file}`);
    }
    for (let checkpoint = 1; checkpoint <= made; checkpoint += 1) {
      const there = names.includes(String(checkpoint));
      if (checkpoint > asked) ok(there, `image ${process} ${checkpoint} is gone`);
      else if (checkpoint <= removed) ok(!there, `image ${process} ${checkpoint} is still there`);
    }
  }
}

interface Imports {
  /** Channels of imports that must be in the log, and those that may be, with their counts. */
  readonly done: ReadonlyMap<string, number>;
  readonly begun: ReadonlyMap<string, number>;
}

/** Every import is in the log whole or not at all. */
async function checkImports(dir: string, before: Imports, said: string): Promise<Imports> {
  const [done, begun] = [new Map(before.done), new Map(before.begun)];
  for (const line of said.split("\n")) {
    const [word, channel, count] = line.split(" ");
    if (word === "begin" || word === "end") begun.set(channel!, Number(count));
    if (word === "end") done.set(channel!, Number(count));
  }
  const there = new Map<string, number>();
  for (const event of await onCopy(dir, imported)) {
    if (event.type !== "send") throw new Error(`a ${event.type} line`);
    same(event.begin, there.get(event.channel) ?? 0);
    there.set(event.channel, event.end);
  }
  for (const [channel, count] of there) same(count, begun.get(channel), `import ${channel} is there in part`);
  for (const channel of done.keys()) ok(there.has(channel), `import ${channel} is lost`);
  return { done: there, begun };
}

async function imported(dir: string) {
  try {
    const log = await EventLog.open(dir, { create: false });
    await finishImport(dir, log).finally(() => log.close());
  } catch (error) {
    if (hasCode(error, "RL_UNKNOWN_APP")) return [];
    throw error;
  }
  same((await verifyLog(dir)).damages, []);
  return storedEvents(dir);
}

export function imageScenario(home: string, dist: string): Scenario<Images> {
  return {
    name: "gc",
    program: [join(home, "gc-writer.mjs"), dist],
    start: { made: 0, asked: 0, removed: 0 },
    check: checkImages,
    lines: 24,
  };
}

export function importScenario(home: string, dist: string): Scenario<Imports> {
  return {
    name: "import",
    program: [join(home, "import-writer.mjs"), dist],
    start: { done: new Map(), begun: new Map() },
    check: checkImports,
    lines: 16,
  };
}
