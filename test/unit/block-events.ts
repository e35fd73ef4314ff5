/** Random events of one process, as wild as the gateways let them in. */
import fc from "fast-check";
import type { BlockPlace } from "../../src/format/block-header.ts";
import { EventColumns } from "../../src/format/event-columns.ts";
import type { Cut, Event } from "../../src/model/event.ts";

const name = fc.oneof(
  fc.constantFrom(
    "a",
    "tcp:0a0b0c0d-01020304",
    "ключ",
    "\u{feff}mark",
    `\u{feff}${"long".repeat(50)}é`,
    "__proto__",
    "\0",
  ),
  fc.string({ minLength: 1, maxLength: 40, unit: "binary" }),
);
const offset = fc.oneof(
  fc.integer({ min: 0, max: 1000 }),
  fc.maxSafeNat(),
  fc.constantFrom(2 ** 32 - 1, 2 ** 32, Number.MAX_SAFE_INTEGER),
);
const range = fc
  .record({ channel: name, one: offset, other: offset })
  .map(({ channel, one, other }) => ({ channel, begin: Math.min(one, other), end: Math.max(one, other) }));
const time = fc.oneof(
  fc.constant(undefined),
  fc.integer({ min: 1_000_000, max: 1_000_300 }),
  fc.maxSafeInteger(),
  fc.double({ noNaN: true, noDefaultInfinity: true }).map((value) => value + 0),
);
const page = fc.oneof(
  name,
  fc.maxSafeInteger().map((value) => value + 0),
);
const offsets = fc.array(fc.tuple(name, offset), { maxLength: 5 }).map((pairs) => new Map(pairs));
/** Seen where it was received, or more; outside is what any set of bits says. */
const cut: fc.Arbitrary<Cut> = fc
  .tuple(offsets, offsets, fc.option(offsets), fc.option(fc.nat()))
  .map(([sent, received, more, bits]) => {
    const seen = new Map(
      [...(more ?? [])].map(([name, end]) => [name, Math.max(end, received.get(name) ?? 0)]),
    );
    const names = [...sent.keys(), ...received.keys(), ...(more === null ? [] : seen.keys())];
    const outside = new Set(names.filter((_, at) => (((bits ?? 0) >> at) & 1) === 1));
    return { sent, received, ...(more === null ? {} : { seen }), ...(bits === null ? {} : { outside }) };
  });
const role = fc.constantFrom("source" as const, "destination" as const);
const known = {
  version: offset,
  writer: fc.constantFrom("p0", "ключ", "w".repeat(255)),
  interval: fc.integer({ min: 1 }),
};
const owner = fc.constant(true as const);
/** What may be known of a page's version. */
const version = fc.record({ ...known, owner }, { requiredKeys: [] });
/** A message that ownership of a page comes with. */
const grant = fc.record({ page, ...known, owner }, { requiredKeys: ["owner"] });

const body: fc.Arbitrary<object> = fc.oneof(
  { weight: 6, arbitrary: range.map((at) => ({ type: "send", ...at })) },
  { weight: 6, arbitrary: range.map((at) => ({ type: "receive", ...at })) },
  fc.record({
    type: fc.constant("page-fault"),
    page,
    access: fc.constantFrom("read" as const, "write" as const),
  }),
  fc
    .tuple(fc.constantFrom("send", "receive"), range, grant)
    .map(([type, at, of]) => ({ type, ...at, ...of })),
  fc
    .tuple(fc.constantFrom("page-copy", "page-invalidate"), range, page, role, version)
    .map(([type, at, named, as, of]) => ({ type, ...at, page: named, role: as, ...of })),
  fc.constant({ type: "stable" }),
  fc.record(
    { type: fc.constant("gap"), lost: offset, reason: fc.constantFrom("udp", "left", "ключ") },
    { requiredKeys: ["type"] },
  ),
  range.map((at) => ({ type: "peek", ...at })),
  name.map((channel) => ({ type: "outside", channel })),
  fc.record(
    {
      type: fc.constant("checkpoint"),
      checkpoint: fc.integer({ min: 1, max: 2 ** 40 }),
      usable: fc.boolean(),
      image: name,
      cut,
    },
    { requiredKeys: ["type", "checkpoint", "usable"] },
  ),
);

/** Events without rollbacks: what a rollback undoes depends on what is there. */
export const anyEvents: fc.Arbitrary<Event[]> = fc
  .tuple(name, fc.array(fc.tuple(body, time, fc.option(name)), { minLength: 1, maxLength: 60 }))
  .map(([process, list]) =>
    list.map(
      ([fields, at, node]) =>
        ({
          process,
          ...fields,
          ...(at === undefined ? {} : { time: at }),
          ...(node === null ? {} : { node }),
        }) as Event,
    ),
  );

export function columnsOf(events: readonly Event[], threads: readonly number[] = [0]): EventColumns {
  const columns = new EventColumns(events[0]!.process);
  for (const [row, event] of events.entries()) columns.push(event, threads[row % threads.length]);
  return columns;
}

/** The first block of a log. */
export function firstPlace(columns: EventColumns): BlockPlace {
  let greatestCheckpoint = 0;
  for (const event of columns.extras.values())
    if (event.type === "checkpoint") greatestCheckpoint = Math.max(greatestCheckpoint, event.checkpoint);
  return {
    application: "app",
    chain: 1,
    previousHash: new Uint8Array(32),
    sequence: 1,
    previousBlock: 0,
    previousControl: 0,
    position: 0,
    positionAfter: columns.count,
    greatestCheckpoint,
  };
}
