/** logs-format.md and the source say the same. */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { decodeBlock, encodeBlock } from "../../src/format/block.ts";
import {
  AT,
  BLOCK_FLAG,
  BLOCK_VERSION,
  HASH_BYTES,
  HEADER_BYTES,
  layOut,
} from "../../src/format/block-layout.ts";
import { EVENT_KIND, EventColumns } from "../../src/format/event-columns.ts";
import {
  ANCHOR_AT,
  ANCHOR_HEADER_BYTES,
  SEGMENT_AT,
  SEGMENT_ENTRY_BYTES,
} from "../../src/format/log-anchor.ts";
import { COMMIT_AT, COMMIT_BYTES_TOTAL } from "../../src/format/log-commit.ts";
import { MAX_BLOCK_BYTES, MAX_BLOCK_EVENTS, MAX_EVENT_BLOCK_BYTES } from "../../src/model/limits.ts";

const root = join(import.meta.dirname, "../..");
const spec = readFileSync(join(root, "logs-format.md"), "utf8");

/** The rows of the first table under a heading, as cells. */
function table(heading: string): string[][] {
  const lines = spec.slice(spec.indexOf(`# ${heading}\n`)).split("\n");
  const from = lines.findIndex((line) => line.startsWith("|---"));
  const rows = lines.slice(from + 1);
  return rows
    .slice(
      0,
      rows.findIndex((line) => !line.startsWith("|")),
    )
    .map((line) =>
      line
        .split("|")
        .slice(1, -1)
        .map((cell) => cell.trim()),
    );
}

/** Field → offset, in the table's order; each field begins where the one before it ends. */
function layoutOf(heading: string): [Record<string, number>, number] {
  const layout: Record<string, number> = {};
  let next = 0;
  for (const [field, offset, size] of table(heading)) {
    expect([field, Number(offset)]).toEqual([field, next]);
    layout[field!.replaceAll("`", "")] = next;
    next += Number(size);
  }
  return [layout, next];
}

test.each([
  ["Block header", AT, HEADER_BYTES],
  ["Commit record", COMMIT_AT, COMMIT_BYTES_TOTAL],
  ["Anchor", ANCHOR_AT, ANCHOR_HEADER_BYTES],
  ["Segment entry", SEGMENT_AT, SEGMENT_ENTRY_BYTES],
] as const)("%s", (heading, at, size) => {
  expect(layoutOf(heading)).toEqual([{ ...at }, size]);
});

test("the sections stand in the order of their table", () => {
  const camel = (name: string): string => name.replace(/ (\w)/g, (_, letter: string) => letter.toUpperCase());
  const listed = table("Sections").map(([name]) => camel(name!));
  const shape = {
    ...{
      rows: 9,
      channels: 3,
      threads: 2,
      beginExceptions: 2,
      timeExceptions: 2,
      nameBytes: 9,
      extraBytes: 9,
    },
    ...{ channelWidth: 1, lengthWidth: 2, timeWidth: 4, threadWidth: 1, beginWidth: 8 },
  };
  const { size: _, ...sections } = layOut(shape);
  const placed = Object.entries(sections).sort(([, one], [, other]) => one - other);
  expect(listed.map((name) => name.replace(/Values$|Rows$/, ""))).toEqual(
    placed.map(([name]) => name.replace(/Values$|Rows$/, "")),
  );
});

test("flags, kinds, versions and limits", () => {
  for (const [flag, bit] of Object.entries(BLOCK_FLAG)) expect(spec).toContain(`${bit} *${flag}*`);
  const kinds = table("Sections").find(([name]) => name === "kind")![3];
  expect(kinds).toBe(
    Object.entries(EVENT_KIND)
      .map(([name, code]) => `${code} ${name}`)
      .join(" · "),
  );
  expect(spec.startsWith(`# The log on disk, version ${BLOCK_VERSION}\n`)).toBe(true);
  const spaced = (value: number): string => value.toLocaleString("en-US").replaceAll(",", " ");
  for (const limit of [MAX_BLOCK_BYTES, MAX_BLOCK_EVENTS, MAX_EVENT_BLOCK_BYTES])
    expect(spec).toContain(spaced(limit));
  expect(spec).toContain(`${HEADER_BYTES + HASH_BYTES} … ${spaced(MAX_EVENT_BLOCK_BYTES)}`);
});

test("the files that check the invariants are there", () => {
  const files = [...spec.matchAll(/`((?:src|test)\/[\w/.-]+\.ts)`/g)].map(([, path]) => path!);
  expect(files.length).toBeGreaterThan(10);
  for (const path of files) expect([path, existsSync(join(root, path))]).toEqual([path, true]);
});

test("the example in hex is a block, byte for byte", () => {
  const text = /```hex\n([^`]*)```/.exec(spec)![1]!;
  const bytes = Buffer.from(text.replace(/^\d{4} /gm, "").replace(/\s/g, ""), "hex");
  const { header, columns } = decodeBlock(bytes);
  const p0 = { process: "p0" };
  const expected = new EventColumns("p0");
  expected.push({ type: "send", ...p0, channel: "c", begin: 0, end: 300, time: 1000 }, 7);
  expected.push({ type: "receive", ...p0, channel: "d", begin: 5, end: 9, time: 1040 }, 7);
  expected.push({ type: "gap", ...p0, lost: 2, time: 1100 }, 7);
  expect([...columns.events()]).toEqual([...expected.events()]);
  expect([...columns.thread.subarray(0, 3)]).toEqual([7, 7, 7]);
  expect(Buffer.from(encodeBlock(header, expected))).toEqual(bytes);
});
