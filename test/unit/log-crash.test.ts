/**
 * What a kill -9 leaves at each step of the disk's work: the folder is copied before and after every open, write, sync, rename,
 * remove and LevelDB batch of a run with commits, rotations and a removal, and each copy is opened as the next owner would.
 */

import syncFs, { cpSync, existsSync, mkdtempSync, rmSync } from "node:fs";
import fs from "node:fs/promises";
import { syncBuiltinESMExports } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Level } from "level";
import { afterAll, afterEach, expect, test } from "vitest";
import { EventLog } from "../../src/log/event-log.ts";
import { verifyLog } from "../../src/log/verify-log.ts";
import { sized } from "../size.ts";
import { eventsOf, sends, storedEvents } from "./log-rig.ts";

const root = mkdtempSync(join(existsSync("/dev/shm") ? "/dev/shm" : tmpdir(), "recovery-line-crash-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

const STEPS = ["open", "rename", "rm", "mkdir"] as const;
type Hook = (name: string) => void;
const whole = { ...fs };
const wholeSync = (({ open, openSync, fsync, writeFileSync }) => ({ open, openSync, fsync, writeFileSync }))(
  syncFs,
);
const batch = Level.prototype.batch as (...args: unknown[]) => Promise<void>;

/** Calls `hook` before and after each step; what it throws, the step throws. */
function instrument(hook: Hook): void {
  for (const name of STEPS) {
    const original = whole[name] as (...args: unknown[]) => Promise<unknown>;
    Object.assign(fs, {
      [name]: async (...args: unknown[]) => {
        hook(`before ${name} ${args[0]}`);
        const result = await original(...args);
        hook(`after ${name} ${args[0]}`);
        return name === "open" ? instrumentedFile(result as fs.FileHandle, hook, String(args[0])) : result;
      },
    });
  }
  instrumentDescriptors(hook);
  Level.prototype.batch = async function (this: unknown, ...args: unknown[]) {
    hook("before batch");
    await batch.apply(this, args);
    hook("after batch");
  } as never;
  syncBuiltinESMExports();
}

type Done<T> = (error: Error | null, value?: T) => void;

/** The calls of node:fs that the anchor is written with: open and fsync with callbacks, writeFileSync on a descriptor. */
function instrumentDescriptors(hook: Hook): void {
  const paths = new Map<number, string>();
  const around = <T>(name: string, path: string, call: (done: Done<T>) => void, done: Done<T>): void => {
    hook(`before ${name} ${path}`); // promisify makes a rejection of it
    call((error, value) => {
      if (error === null) hook(`after ${name} ${path}`);
      done(error, value as T);
    });
  };
  const open = (path: string, flags: number, mode: number, done: Done<number>): void =>
    around<number>(
      "open",
      path,
      (then) => wholeSync.open(path, flags, mode, then),
      (error, file) => {
        if (file !== undefined) paths.set(file, path);
        done(error, file);
      },
    );
  const openSync: typeof syncFs.openSync = (path, ...rest) => {
    const file = wholeSync.openSync(path, ...rest);
    paths.set(file, String(path));
    return file;
  };
  const fsync = (file: number, done: Done<undefined>): void =>
    around("sync", paths.get(file)!, (then) => wholeSync.fsync(file, then), done);
  const writeFileSync: typeof syncFs.writeFileSync = (file, ...rest) => {
    const path = typeof file === "number" ? paths.get(file) : undefined;
    if (path !== undefined) hook(`before writeFile ${path}`);
    wholeSync.writeFileSync(file, ...rest);
    if (path !== undefined) hook(`after writeFile ${path}`);
  };
  Object.assign(syncFs, { open, openSync, fsync, writeFileSync });
}

function instrumentedFile(file: fs.FileHandle, hook: Hook, path: string): fs.FileHandle {
  for (const name of ["writeFile", "sync"] as const) {
    const original = (file[name] as (...args: unknown[]) => Promise<void>).bind(file);
    Object.assign(file, {
      [name]: async (...args: unknown[]) => {
        hook(`before ${name} ${path}`);
        await original(...args);
        hook(`after ${name} ${path}`);
      },
    });
  }
  return file;
}

function restore(): void {
  Object.assign(fs, whole);
  Object.assign(syncFs, wholeSync);
  Level.prototype.batch = batch as never;
  syncBuiltinESMExports();
}
afterEach(restore);

interface Progress {
  /** Events of "p" that were acknowledged, and that were handed over. */
  acknowledged: number;
  handed: number;
  firstKept: number;
}

/** Commits of ten events each with a state, two rotations, one removal. `reopen`: the owner changes half way. */
async function run(dir: string, progress: Progress): Promise<void> {
  const add = async (log: EventLog): Promise<void> => {
    await log.append(sends("p", progress.handed, 10));
    progress.handed += 10;
    log.putState("ring", { position: progress.handed });
    await log.commit();
    progress.acknowledged = progress.handed;
  };
  const owning = async (create: boolean, work: (log: EventLog) => Promise<unknown>): Promise<void> => {
    const log = await EventLog.open(dir, { create });
    await work(log).finally(() => log.close());
  };
  await owning(true, async (log) => {
    await add(log);
    await add(log);
    await log.rotate();
    await add(log);
    await log.rotate();
  });
  await owning(false, async (log) => {
    await add(log);
    progress.firstKept = 20;
    await (await log.prune({ boundary: 3, blocks: [] })).removed;
    await add(log);
  });
}

/** The log holds whole commits: all acknowledged ones, at most the one under way, and the state of the last of them. */
async function check(
  dir: string,
  { acknowledged, handed, firstKept }: Progress,
  place: string,
): Promise<void> {
  const log = await EventLog.open(dir, { create: acknowledged === 0 });
  const events = await eventsOf(log.readBlocks());
  const state = log.getState("ring") as { position: number } | undefined;
  const begin = log.firstChain === 1 ? 0 : firstKept;
  const end = begin + events.length;
  expect([place, end === acknowledged || end === handed]).toEqual([place, true]);
  expect([place, state?.position ?? 0]).toEqual([place, end]);
  if (events.length > 0) expect(events).toEqual([...sends("p", begin, events.length).events()]);
  await log.append(sends("p", end, 5)); // and it goes on
  await log.commit();
  await log.close();
  expect(await storedEvents(dir)).toHaveLength(events.length + 5);
  expect((await verifyLog(dir)).damages).toEqual([]);
}

test("killed at any step, a log holds all that was acknowledged, whole commits only, and goes on", async () => {
  const dir = join(root, "app");
  const progress: Progress = { acknowledged: 0, handed: 0, firstKept: 0 };
  const copies: { place: string; path: string; progress: Progress }[] = [];
  instrument((place) => {
    if (!existsSync(dir)) return;
    const path = join(root, `copy-${copies.length}`);
    cpSync(dir, path, { recursive: true });
    copies.push({ place: `${copies.length}: ${place.replace(root, "")}`, path, progress: { ...progress } });
  });
  await run(dir, progress);
  restore();
  const stride = sized(1, 2);
  for (let at = Date.now() % stride; at < copies.length; at += stride) {
    const { path, progress, place } = copies[at]!;
    await check(path, progress, place);
  }
  console.log(`${copies.length} kill points`);
  expect(copies.length).toBeGreaterThan(140);
}, 120_000);

/** The first code fails each step, each of the others one of so many. */
const STRIDE = sized(1, 4);

for (const code of ["ENOSPC", "EIO", "EINTR", "EDQUOT"])
  test(`${code} at any step breaks the log until it is opened anew; nothing acknowledged is lost`, async () => {
    let failed = 0;
    const stride = code === "ENOSPC" ? 1 : STRIDE;
    for (let at = 1 + (Date.now() % stride); ; at += stride) {
      const dir = join(root, `${code}-${at}`);
      const progress: Progress = { acknowledged: 0, handed: 0, firstKept: 0 };
      let place = "";
      let steps = 0;
      instrument((name) => {
        steps += name.startsWith("before") ? 1 : 0;
        if (steps !== at || !name.startsWith("before") || place !== "") return;
        place = name.replace(root, "");
        throw Object.assign(new Error(`${code}: failed by the test`), { code });
      });
      const result = await run(dir, progress).then(
        () => undefined,
        (error: unknown) => error,
      );
      restore();
      if (place === "") break; // no step is left
      failed += 1;
      expect([place, result]).toEqual([place, expect.objectContaining({ code: "RL_LOG_WRITE" })]);
      if (existsSync(dir)) await check(dir, progress, `${at}: ${place}`);
    }
    console.log(`${code} at ${failed} steps`);
    expect(failed).toBeGreaterThan(70 / stride - 1);
  }, 120_000);
