import fc from "fast-check";
import { expect, test } from "vitest";
import { EntryWriter } from "../../src/format/page-entries.ts";
import { packStrict } from "../../src/format/strict-msgpack.ts";
import type { Event } from "../../src/model/event.ts";

const number = fc.oneof(
  fc.nat(300),
  fc.nat(70_000),
  fc.integer({ min: 0, max: 2 ** 32 - 1 }),
  fc.constantFrom(127, 128, 255, 256, 65_535, 65_536),
);
const some = <T>(value: fc.Arbitrary<T>) => fc.option(value, { nil: undefined });
const version = fc.record({
  version: some(number),
  writer: some(fc.constantFrom("p0", "h7", "x".repeat(31))),
  interval: some(number),
  owner: fc.constantFrom(undefined, true),
});

/** What logs-format.md, "Extras", says of it: the general packer's way. */
function entry(row: number, event: Event): unknown[] {
  const known = (e: { version?: unknown; writer?: unknown; interval?: unknown; owner?: unknown }) =>
    e.version === undefined && e.writer === undefined && e.interval === undefined && e.owner === undefined
      ? []
      : [e.version ?? null, e.writer ?? null, e.interval ?? null, e.owner === true];
  if (event.type === "page-fault") return [row, null, event.page, event.access === "write" ? 1 : 0];
  if (event.type === "page-copy" || event.type === "page-invalidate")
    return [row, null, event.page, event.role === "destination" ? 1 : 0, ...known(event)];
  if (event.type === "send") return [row, null, event.page ?? null, ...known(event)];
  throw new Error(event.type);
}

const common = { process: "p0", channel: "c", begin: 0, end: 1 };
const defined = (event: object) =>
  Object.fromEntries(Object.entries(event).filter(([, value]) => value !== undefined)) as unknown as Event;
const event: fc.Arbitrary<Event> = fc.oneof(
  fc
    .record({ page: number, access: fc.constantFrom("read", "write") })
    .map((e) => defined({ type: "page-fault", process: "p0", ...e })),
  fc
    .record({
      type: fc.constantFrom("page-copy", "page-invalidate"),
      page: number,
      role: fc.constantFrom("source", "destination"),
      version,
    })
    .map(({ version: known, ...e }) => defined({ ...common, ...e, ...known })),
  fc
    .record({ page: some(number), version })
    .map(({ version: known, page }) => defined({ ...common, type: "send", page, ...known, owner: true })),
);

test("entries of page traffic are the bytes of the general packer", () => {
  const writer = new EntryWriter();
  fc.assert(
    fc.property(fc.array(fc.tuple(number, event), { maxLength: 400 }), (all) => {
      writer.begin(all.length);
      const expected = all.map(([row, one]) => entry(row, one));
      all.forEach(([row, one], index) => {
        expect(writer.page(row, one)).toBe(expected[index]!.length);
      });
      expect(Buffer.from(writer.taken()).equals(Buffer.from(packStrict(expected)))).toBe(true);
    }),
  );
});

test("what is not page traffic, and values that take more than 32 bits, are left to the general packer", () => {
  const writer = new EntryWriter();
  writer.begin(1);
  for (const one of [
    { type: "gap", process: "p0", lost: 3 },
    { type: "page-fault", process: "p0", page: 2 ** 32, access: "read" },
    { type: "page-fault", process: "p0", page: "name", access: "read" },
    { type: "page-fault", process: "p0", page: 1, access: "read", node: "n" },
    { ...common, type: "page-copy", page: 1, role: "source", writer: "ä" },
    { ...common, type: "page-copy", page: 1, role: "source", writer: "x".repeat(32) },
    { ...common, type: "send" },
  ] satisfies Event[])
    expect(writer.page(0, one as Event)).toBe(0);
  expect([...writer.taken()]).toEqual([0x91]);
});
