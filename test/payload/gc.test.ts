/** `gc --apply` gives up payloads that no replay can need, and no others. */
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { openPayloadStore } from "../../src/restart/payload-log.ts";
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
