import fc from "fast-check";
import { expect, test } from "vitest";
import { decodeBlock, encodeBlock } from "../../src/format/block.ts";
import { sha256 } from "../../src/format/block-header.ts";
import { AT, HASH_BYTES } from "../../src/format/block-layout.ts";
import { planBlock } from "../../src/format/block-measure.ts";
import { EVENT_KIND, EventColumns } from "../../src/format/event-columns.ts";
import { hasCode } from "../../src/model/errors.ts";
import type { Event } from "../../src/model/event.ts";
import { MAX_BLOCK_BYTES } from "../../src/model/limits.ts";
import { anyEvents, columnsOf, firstPlace } from "./block-events.ts";

const threads = fc.array(fc.nat({ max: 2 ** 32 - 1 }), { minLength: 1, maxLength: 5 });

test("decode(encode(x)) = x for any events", () => {
  fc.assert(
    fc.property(anyEvents, threads, (events, tids) => {
      const columns = columnsOf(events, tids);
      const { header, columns: decoded } = decodeBlock(encodeBlock(firstPlace(columns), columns));
      expect([...decoded.events()]).toEqual(events);
      expect(decoded.thread).toEqual(columns.thread.slice(0, columns.count));
      expect(header.process).toBe(columns.process);
      expect(header.sends).toBe(events.filter(({ type }) => type === "send").length);
    }),
    { numRuns: 500 },
  );
});

test("any part of the rows can be a block of its own", () => {
  fc.assert(
    fc.property(anyEvents, fc.nat(), fc.nat(), (events, one, other) => {
      const columns = columnsOf(events);
      const from = one % events.length;
      const to = from + 1 + (other % (events.length - from));
      const place = { ...firstPlace(columns), position: from, positionAfter: to };
      const { columns: decoded } = decodeBlock(encodeBlock(place, columns, from, to));
      expect([...decoded.events()]).toEqual(events.slice(from, to));
    }),
    { numRuns: 300 },
  );
});

/** Undefined if the bytes decode or fail as they should. */
function misbehaviour(bytes: Uint8Array): unknown {
  try {
    for (const event of decodeBlock(bytes).columns.events()) void event;
  } catch (error) {
    if (!hasCode(error, "RL_BAD_BLOCK")) return error;
  }
  return undefined;
}

/** With the right size and checksum, so that what stands behind them is reached. */
function seal(bytes: Uint8Array): Uint8Array {
  new DataView(bytes.buffer, bytes.byteOffset).setUint32(AT.size, bytes.length, true);
  const trailer = bytes.length - HASH_BYTES;
  bytes.set(sha256(bytes.subarray(0, trailer)), trailer);
  return bytes;
}

test("any bytes throw nothing but RL_BAD_BLOCK", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 600 }), (bytes) => {
      expect(misbehaviour(bytes)).toBeUndefined();
    }),
    { numRuns: 1000 },
  );
});

test("blocks with changed bytes and a right checksum throw nothing but RL_BAD_BLOCK", () => {
  const change = fc.array(fc.tuple(fc.nat(), fc.integer({ min: 0, max: 255 })), {
    minLength: 1,
    maxLength: 6,
  });
  fc.assert(
    fc.property(anyEvents, change, fc.boolean(), (events, changes, inHeader) => {
      const columns = columnsOf(events, [1, 2]);
      const bytes = Uint8Array.from(encodeBlock(firstPlace(columns), columns));
      const span = inHeader ? 160 : bytes.length - HASH_BYTES;
      for (const [at, value] of changes) bytes[at % span] = value;
      expect(misbehaviour(seal(bytes))).toBeUndefined();
    }),
    { numRuns: 3000 },
  );
});

test("every single changed byte of a block is detected by its checksum", () => {
  const columns = columnsOf([
    { type: "send", process: "p", channel: "c", begin: 0, end: 10, time: 5 },
    { type: "checkpoint", process: "p", checkpoint: 1, usable: true },
  ]);
  const bytes = encodeBlock(firstPlace(columns), columns);
  for (let bit = 0; bit < bytes.length * 8; bit += 1) {
    const damaged = Uint8Array.from(bytes);
    damaged[bit >> 3]! ^= 1 << (bit & 7);
    expect(() => decodeBlock(damaged)).toThrow(expect.objectContaining({ code: "RL_BAD_BLOCK" }));
  }
  for (let length = 0; length < bytes.length; length += 1)
    expect(() => decodeBlock(bytes.subarray(0, length))).toThrow(
      expect.objectContaining({ code: "RL_BAD_BLOCK" }),
    );
});

test("TCP events take at most 12 bytes each", () => {
  const columns = new EventColumns("server");
  const names = Array.from({ length: 64 }, (_, n) =>
    columns.addChannel(`tcp:${"0".repeat(6)}${n + 10}-0a0b0c0d`),
  );
  const at = new Float64Array(names.length * 2);
  let time = 1e15;
  for (let row = 0; row < 4096; row += 1) {
    const kind = Math.random() < 0.5 ? EVENT_KIND.send : EVENT_KIND.receive;
    const channel = Math.floor(Math.random() * names.length);
    const slot = channel * 2 + (kind === EVENT_KIND.send ? 1 : 0);
    const begin = at[slot]!;
    at[slot] = begin + 1 + Math.floor(Math.random() * 60_000);
    time += Math.floor(Math.random() * 1e6);
    columns.pushRange(kind, channel, begin, at[slot]!, time, 1000 + (row % 7));
  }
  const bytes = encodeBlock(firstPlace(columns), columns);
  expect(bytes.length / columns.count).toBeLessThanOrEqual(12);
});

/** The rows of the blocks that `planBlock` makes, one after the other. */
function split(columns: EventColumns): { from: number; to: number; size: number }[] {
  const blocks: { from: number; to: number; size: number }[] = [];
  for (let from = 0; from < columns.count; ) {
    const { to, sections } = planBlock(columns, from, 8);
    blocks.push({ from, to, size: sections.size });
    from = to;
  }
  return blocks;
}

test("a long run is split into blocks within MAX_BLOCK_BYTES; an enormous event stands alone", () => {
  const columns = new EventColumns("p");
  for (let row = 0; row < 100_000; row += 1)
    columns.push({
      type: "send",
      process: "p",
      channel: `c${row % 9000}`,
      begin: row * 2 ** 33,
      end: row * 2 ** 33 + 1,
    });
  const sent = new Map(Array.from({ length: 20_000 }, (_, n) => [`tcp:${String(n).padStart(20, "0")}`, n]));
  columns.push({
    type: "checkpoint",
    process: "p",
    checkpoint: 1,
    usable: true,
    cut: { sent, received: new Map() },
  });
  columns.push({ type: "stable", process: "p" });
  const blocks = split(columns);
  expect(blocks.at(-1)?.to).toBe(columns.count);
  for (const { from, to, size } of blocks)
    if (to - from > 1) expect(size).toBeLessThanOrEqual(MAX_BLOCK_BYTES);
  expect(blocks.find(({ size }) => size > MAX_BLOCK_BYTES)).toMatchObject({ from: 100_000, to: 100_001 });
});

test("a rollback ends its block; control events do not drag long runs of data with them", () => {
  const data = (count: number): Event[] =>
    Array.from({ length: count }, (_, n) => ({
      type: "send",
      process: "p",
      channel: "c",
      begin: n,
      end: n + 1,
    }));
  const columns = columnsOf([
    ...data(3000),
    { type: "checkpoint", process: "p", checkpoint: 1, usable: true },
    ...data(10),
    { type: "stable", process: "p" },
    ...data(3000),
    { type: "rollback", process: "p", checkpoint: 1 },
    ...data(5),
  ]);
  expect(split(columns).map(({ from, to }) => [from, to])).toEqual([
    [0, 3000],
    [3000, 3012],
    [3012, 6012],
    [6012, 6013],
    [6013, 6018],
  ]);
});

test("a block is of version 2 only where a row carries a page version, and version 1 has no room for one", () => {
  const range = { process: "h0", channel: "dsm:h0-p1", begin: 0, end: 1 };
  const copy = { type: "page-copy", ...range, page: 7, role: "source" } as const;
  const versionOf = (event: Event): number => {
    const columns = columnsOf([event]);
    return encodeBlock(firstPlace(columns), columns)[AT.version]!;
  };
  expect(versionOf(copy)).toBe(1);
  expect(versionOf({ type: "send", ...range })).toBe(1);
  for (const known of [{ version: 0 }, { writer: "p1" }, { interval: 1 }, { owner: true }] as const)
    expect([known, versionOf({ ...copy, ...known })]).toEqual([known, 2]);
  expect(versionOf({ type: "send", ...range, owner: true })).toBe(2);
  const columns = columnsOf([{ ...copy, version: 3 }]);
  const bytes = encodeBlock(firstPlace(columns), columns);
  bytes[AT.version] = 1;
  expect(() => decodeBlock(seal(bytes))).toThrow("an extra of 8 fields");
  bytes[AT.version] = 4;
  expect(() => decodeBlock(seal(bytes))).toThrow("unknown version 4");
});

test("a block is of version 3 only where a row looks, is outside, tells a gap's reason or a cut's more; version 2 has no room for them", () => {
  const p = { process: "p" };
  const c = { ...p, channel: "c" };
  const checkpoint = { type: "checkpoint", ...p, checkpoint: 1, usable: true } as const;
  const cut = { sent: new Map([["c", 1]]), received: new Map([["d", 2]]) };
  const blockOf = (event: Event, outside = false): Uint8Array => {
    const columns = columnsOf([event]);
    return encodeBlock({ ...firstPlace(columns), outside }, columns);
  };
  const versionOf = (event: Event): number => blockOf(event)[AT.version]!;
  expect(versionOf({ type: "gap", ...p, lost: 1 })).toBe(1);
  expect(versionOf({ ...checkpoint, cut })).toBe(1);
  expect(blockOf({ ...checkpoint, cut }, true)[AT.version]).toBe(3);
  const rows: [Event, string][] = [
    [{ type: "peek", ...c, begin: 0, end: 1 }, "unknown kind 10"],
    [{ type: "outside", ...c }, "unknown kind 11"],
    [{ type: "gap", ...p, reason: "udp" }, "an extra of 4 fields"],
    [{ ...checkpoint, cut: { ...cut, seen: new Map([["d", 3]]) } }, "an extra of 9 fields"],
    [{ ...checkpoint, cut: { ...cut, outside: new Set(["d"]) } }, "an extra of 9 fields"],
  ];
  for (const [event, why] of rows) {
    expect([event, versionOf(event)]).toEqual([event, 3]);
    const bytes = Uint8Array.from(blockOf(event));
    bytes[AT.version] = 2;
    expect(() => decodeBlock(seal(bytes))).toThrow(why);
  }
  const flagged = Uint8Array.from(blockOf({ ...checkpoint, cut }, true));
  flagged[AT.version] = 2;
  expect(() => decodeBlock(seal(flagged))).toThrow("a flag of a later version");
});

test("peeks and outside rows are regular, no control rows, and what was looked at is received next", () => {
  const c = { process: "p", channel: "c" };
  const rows: Event[] = [{ type: "outside", ...c }];
  for (let at = 0; at < 900; at += 3)
    rows.push(
      { type: "peek", ...c, begin: at, end: at + 3 },
      { type: "receive", ...c, begin: at, end: at + 3 },
    );
  const columns = columnsOf(rows);
  const plan = planBlock(columns, 0, 8);
  expect([plan.controls, plan.irregular, plan.hasOutside]).toEqual([0, false, true]);
  expect(plan.beginExceptionRows).toEqual([]);
  const { columns: decoded } = decodeBlock(encodeBlock(firstPlace(columns), columns));
  expect([...decoded.events()]).toEqual(rows);
});
