/** `gc --apply` gives up payloads that no replay can need, and no others. */
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { openPayloadStore } from "../../src/payload/payload-log.ts";
import { build, run } from "../cli/cli.ts";
import { channelName, writeSegments } from "./segments.ts";

let home = "";
beforeAll(build);
beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), "rl-payload-gc-"));
});
afterEach(() => rmSync(home, { recursive: true }));

test("what was received before the checkpoints that every line keeps", async () => {
  const channel = channelName(0);
  const events = [
    { type: "send", process: "a", channel, begin: 0, end: 1000 },
    { type: "receive", process: "b", channel, begin: 0, end: 700 },
    { type: "checkpoint", process: "a", checkpoint: 1 },
    { type: "checkpoint", process: "b", checkpoint: 1 },
    { type: "receive", process: "b", channel, begin: 700, end: 1000 },
    { type: "send", process: "a", channel, begin: 1000, end: 1200 },
  ];
  const lines = events.map((event) => `${JSON.stringify(event)}\n`).join("");
  expect((await run(["import", "app", "--from", "-", "--log", home], lines)).code).toBe(0);
  const folder = join(home, "app", "payload");
  mkdirSync(folder);
  writeSegments(folder, [{ begin: 0, end: 1200 }]);
  const ranges = async (): Promise<unknown> => {
    const store = openPayloadStore(join(home, "app"))!;
    return store.ranges(channel).finally(() => store.close());
  };
  expect((await run(["gc", "app", "--log", home])).code).toBe(0);
  expect(await ranges()).toEqual([{ begin: 0, end: 1200 }]);
  expect((await run(["gc", "app", "--apply", "--in-transit", "any", "--log", home])).code).toBe(0);
  expect(await ranges()).toEqual([{ begin: 700, end: 1200 }]);
  expect((await run(["gc", "app", "--apply", "--in-transit", "any", "--log", home])).code).toBe(0);
  expect(await ranges()).toEqual([{ begin: 700, end: 1200 }]);
});

test("compute says where in-transit payloads are: message log, payload log, a live connection, or not known", async () => {
  const [kept, live] = [channelName(0), channelName(1)];
  const events = [
    { type: "send", process: "a", channel: kept, begin: 0, end: 300 },
    { type: "stable", process: "a" },
    { type: "send", process: "a", channel: kept, begin: 300, end: 2000 },
    { type: "checkpoint", process: "a", checkpoint: 1 },
    { type: "send", process: "b", channel: live, begin: 0, end: 5 },
    { type: "checkpoint", process: "c", checkpoint: 1 },
    { type: "receive", process: "d", channel: live, begin: 0, end: 2 },
    { type: "receive", process: "c", channel: kept, begin: 0, end: 100 },
  ];
  const lines = events.map((event) => `${JSON.stringify(event)}\n`).join("");
  expect((await run(["import", "app", "--from", "-", "--log", home], lines)).code).toBe(0);
  const folder = join(home, "app", "payload");
  mkdirSync(folder);
  writeSegments(folder, [{ begin: 0, end: 1000 }]);
  const answer = await run(["compute", "app", "--failed", "a,c", "--json", "--log", home]);
  expect(answer.code).toBe(0);
  const { inTransit, payloads } = JSON.parse(answer.stdout);
  expect(inTransit.map(({ begin, end }: { begin: number; end: number }) => [begin, end]).sort()).toEqual([
    [0, 2000],
    [2, 5],
  ]);
  expect(payloads.filter(({ channel }: { channel: string }) => channel === kept)).toEqual([
    { channel: kept, begin: 0, end: 300, place: "message log" },
    { channel: kept, begin: 300, end: 1000, place: "payload log" },
    { channel: kept, begin: 1000, end: 2000, place: "unknown" },
  ]);
  expect(payloads.filter(({ channel }: { channel: string }) => channel === live)).toEqual([
    { channel: live, begin: 2, end: 5, place: "connection" },
  ]);
  expect((await run(["compute", "app", "--failed", "a,c", "--log", home])).stdout).toContain("payload log");
});
