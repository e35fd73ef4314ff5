/**
 * Logs that older versions wrote decode for ever: each folder test/golden/log-v* is one, with the events it must give beside it.
 * RECOVERY_LINE_WRITE_GOLDEN=1 writes the folder of the version in use where it is missing; one that is there is never changed.
 */
import { chmodSync, cpSync, existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { decodeBlock, encodeBlock } from "../../src/format/block.ts";
import { AT, BLOCK_VERSION } from "../../src/format/block-layout.ts";
import { printEvent } from "../../src/format/interchange-print.ts";
import { EventLog } from "../../src/log/event-log.ts";
import { openLogReader } from "../../src/log/segment-reader.ts";
import { verifyLog } from "../../src/log/verify-log.ts";
import type { Event } from "../../src/model/event.ts";
import { columnsOf, commitOf, scratch, storedEvents } from "./log-rig.ts";

const golden = join(import.meta.dirname, "../golden");
const versions = (): string[] => readdirSync(golden).filter((name) => /^log-v\d+$/.test(name));

/** One event of every kind, with every optional field, wide and narrow numbers, two segments, a rollback. */
function everyKind(): Event[][] {
  const p = { process: "p0" };
  const far = 2 ** 53 - 1;
  return [
    [
      {
        type: "send",
        ...p,
        channel: "tcp:0a0b0c0d-01020304",
        begin: 0,
        end: 700,
        time: 1.7e18,
      },
      {
        type: "send",
        ...p,
        channel: "tcp:0a0b0c0d-01020304",
        begin: 700,
        end: 70_000,
        time: 1.7e18 + 4096,
      },
      { type: "receive", ...p, channel: "tcp:01020304-0a0b0c0d", begin: 2 ** 32, end: far },
      { type: "stable", ...p, node: "n1" },
      { type: "gap", ...p },
      { type: "gap", ...p, lost: 7, time: 0.5 },
    ],
    [
      { type: "page-fault", process: "ключ", page: "heap", access: "write" },
      {
        type: "page-copy",
        process: "ключ",
        page: -4096,
        role: "source",
        channel: "page/heap",
        begin: 0,
        end: 1,
      },
      {
        type: "page-invalidate",
        process: "ключ",
        page: 3,
        role: "destination",
        channel: "page/heap",
        begin: 5,
        end: 6,
      },
    ],
    [
      { type: "receive", process: "h1", channel: "c", begin: 3, end: 4, owner: true },
      {
        ...{ type: "send", process: "h1", channel: "dsm:h1-p0", begin: 0, end: 1, node: "n1", page: "a" },
        ...{ version: far, writer: "ключ", interval: 70_000, owner: true },
      },
      {
        ...{
          type: "page-copy",
          process: "h1",
          page: 7,
          role: "source",
          channel: "dsm:h1-p0",
          begin: 1,
          end: 2,
        },
        ...{ version: 0, owner: true },
      },
      {
        ...{
          type: "page-invalidate",
          process: "h1",
          page: 7,
          role: "destination",
          channel: "c",
          begin: 4,
          end: 5,
        },
        ...{ version: 1, writer: "p0", interval: 1 },
      },
    ],
    [
      {
        type: "checkpoint",
        ...p,
        checkpoint: 1,
        usable: true,
        image: "images/p0/1",
        cut: {
          sent: new Map([["tcp:0a0b0c0d-01020304", 70_000]]),
          received: new Map([["tcp:01020304-0a0b0c0d", far]]),
        },
      },
      { type: "checkpoint", ...p, checkpoint: 2, usable: false },
      { type: "send", ...p, channel: "tcp:0a0b0c0d-01020304", begin: 70_000, end: 70_001 },
      { type: "rollback", ...p, checkpoint: 1 },
      { type: "send", ...p, channel: "tcp:0a0b0c0d-01020304", begin: 70_000, end: 70_001 },
    ],
    [
      { type: "outside", process: "web", channel: "curl" },
      { type: "peek", process: "web", channel: "curl", begin: 0, end: 4, node: "n1" },
      { type: "receive", process: "web", channel: "curl", begin: 0, end: 9 },
      { type: "peek", process: "web", channel: "curl", begin: 9, end: 70_000, time: 2 },
      { type: "gap", process: "web", reason: "udp" },
      { type: "gap", process: "web", lost: 3, reason: "shared-socket" },
      {
        type: "checkpoint",
        process: "web",
        checkpoint: 1,
        usable: true,
        cut: {
          sent: new Map([["log", 0]]),
          received: new Map([["curl", 9]]),
          seen: new Map([["curl", 70_000]]),
        },
      },
    ],
  ];
}

async function writeGolden(path: string): Promise<void> {
  const log = await EventLog.open(path, { create: true, application: "golden" });
  const [first, pages, versions, last, outside] = everyKind();
  await commitOf(log, columnsOf(first!), columnsOf(pages!), columnsOf(versions!));
  log.putState("ring", { position: 4096, ringId: "boot:1", live: true, names: ["p0"] });
  await log.commit();
  await log.rotate();
  await commitOf(log, columnsOf(last!), columnsOf(outside!));
  await log.close();
  for (const segment of readdirSync(join(path, "segments")))
    for (const name of ["LOG", "LOG.old"]) rmSync(join(path, "segments", segment, name), { force: true });
  const text = everyKind()
    .flat()
    .map((event) => `${printEvent(event)}\n`);
  writeFileSync(`${path}.jsonl`, text.join(""));
}

if (process.env["RECOVERY_LINE_WRITE_GOLDEN"] === "1" && !existsSync(join(golden, `log-v${BLOCK_VERSION}`)))
  await writeGolden(join(golden, `log-v${BLOCK_VERSION}`));

/** Opening writes, and a checkout gives other rights than a log has. */
function copyOf(version: string): ReturnType<typeof scratch> {
  const folder = scratch();
  const dir = join(folder.path, "app");
  cpSync(join(golden, version), dir, { recursive: true });
  for (const name of ["", "segments", ...readdirSync(join(dir, "segments")).map((one) => `segments/${one}`)])
    chmodSync(join(dir, name), 0o700);
  return folder;
}

test("the version in use has a golden log, in which it is used", async () => {
  expect(versions()).toContain(`log-v${BLOCK_VERSION}`);
  const folder = copyOf(`log-v${BLOCK_VERSION}`);
  const reader = await openLogReader(join(folder.path, "app"));
  const used = new Set<number>();
  for await (const { bytes } of reader.blocks()) used.add(bytes[AT.version]!);
  expect(Math.max(...used)).toBe(BLOCK_VERSION);
  await reader.close();
  folder.remove();
});

test.each(versions())("%s decodes to the events it was made of", async (version) => {
  const folder = copyOf(version);
  const dir = join(folder.path, "app");
  const lines = (await storedEvents(dir)).map((event) => `${printEvent(event)}\n`);
  expect(lines.join("")).toBe(readFileSync(join(golden, `${version}.jsonl`), "utf8"));
  expect(await verifyLog(dir)).toMatchObject({ application: "golden", segments: 2, damages: [] });
  const reader = await openLogReader(dir);
  expect(reader.getState("ring")).toEqual({ position: 4096, ringId: "boot:1", live: true, names: ["p0"] });
  await reader.close();
  folder.remove();
});

test.each(versions())("the blocks of %s are written byte for byte as they were", async (version) => {
  const folder = copyOf(version);
  const reader = await openLogReader(join(folder.path, "app"));
  for await (const { bytes } of reader.blocks()) {
    const { header, columns } = decodeBlock(bytes);
    expect(Buffer.from(encodeBlock(header, columns))).toEqual(Buffer.from(bytes));
  }
  await reader.close();
  folder.remove();
});
