/** Lines of single failures for many applications, over a thread that is played: who gets a turn, and when. */
import { expect, test } from "vitest";
import { LineWatch } from "../../src/daemon/line-watch.ts";
import type { DependentsAnswer, LineAnswer, LineTask } from "../../src/daemon/line-worker.ts";
import { TASKS_PER_WORKER } from "../../src/model/limits.ts";

const EVERY_MS = 5_000;
const ANSWER: LineAnswer = { failures: [], checkpoints: 0, garbage: 0 };

/** Refuses what a thread's queue does not take; the oldest is answered with `answer`. */
class PlayedThread {
  readonly begun: string[] = [];
  readonly #waiting: (() => void)[] = [];

  async run({ app, ask }: LineTask): Promise<LineAnswer | DependentsAnswer> {
    if (this.#waiting.length > TASKS_PER_WORKER) throw new Error("Task queue is at limit");
    this.begun.push("garbage" in ask ? app : `dependents of ${app}`);
    await new Promise<void>((resolve) => this.#waiting.push(resolve));
    return "garbage" in ask ? ANSWER : [];
  }

  async answer(): Promise<void> {
    await settled();
    this.#waiting.shift()?.();
    await settled();
  }

  async close(): Promise<void> {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }
}

const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

class Watched {
  nowMs = 0;
  readonly thread = new PlayedThread();
  readonly lines = new LineWatch(
    "unused",
    () => this.nowMs,
    () => this.thread,
  );
  mark = 0;

  /** As one beat of all of them does. */
  beat(apps: readonly string[]): Promise<string[]> {
    this.mark += 1;
    const asked = apps.map(async (app) => {
      const line = await this.lines.due(app, String(this.mark), false, EVERY_MS);
      return line === undefined ? `${app} not yet` : app;
    });
    return Promise.all(asked);
  }
}

const APPS = Array.from({ length: 12 }, (_, at) => `app${at}`);

test("twelve applications whose lines are due at the same beat all get them, in turn, and none waits twice", async () => {
  const watched = new Watched();
  const first = watched.beat(APPS);
  await settled();
  expect(await watched.beat(APPS)).toEqual(APPS.map((app) => `${app} not yet`));
  for (const _ of APPS) await watched.thread.answer();
  expect(await first).toEqual(APPS);
  watched.nowMs += EVERY_MS;
  const second = watched.beat(APPS);
  for (const _ of APPS) await watched.thread.answer();
  expect(await second).toEqual(APPS);
  expect(watched.thread.begun).toEqual([...APPS, ...APPS]);
});

test("who asks about dependents waits for no application's line; what waits for its turn meanwhile, is unplugged or outlives the collector is not computed", async () => {
  const watched = new Watched();
  const both = watched.beat(["a", "b"]);
  for (let count = 0; count < 2; count += 1) await watched.thread.answer();
  await both;
  watched.nowMs += EVERY_MS;
  const asked = watched.lines.dependents("a", ["p"]);
  const held = watched.beat(["a", "b"]);
  await watched.thread.answer();
  expect(await asked).toEqual([]);
  await watched.thread.answer(); // the one that was under way already
  expect(await held).toEqual(["a", "b not yet"]);
  watched.nowMs += EVERY_MS;
  const then = watched.beat(["a", "b", "c"]);
  watched.lines.forget("b");
  await settled();
  await watched.lines.close();
  expect(await then).toEqual(["a", "b not yet", "c not yet"]);
  expect(watched.thread.begun).toEqual(["a", "b", "dependents of a", "a", "a"]);
});
