// bench: single steps of an event's way, with confidence intervals (the benchmark package), beside a copy of the same bytes
import Benchmark from "benchmark";
import { decodeBlock, encodeBlock } from "../src/format/block.ts";
import type { BlockPlace } from "../src/format/block-header.ts";
import { EVENT_KIND, EventColumns } from "../src/format/event-columns.ts";
import { decodeRecords, makeRecordColumns } from "../src/format/ring-record.ts";
import { encodeSlots } from "../test/unit/ring-slots.ts";
import { type Figure, report } from "./report.ts";

const ROWS = 4096;
const slots = encodeSlots(
  Array.from({ length: ROWS }, (_, row) => ({
    position: row * 64,
    kind: 1 + (row % 2),
    process: 7,
    begin: row * 100,
    length: 100,
  })),
);
const words = new Uint32Array(slots.buffer);
const records = makeRecordColumns(ROWS);
const copy = new Uint8Array(slots.length);

/** Two channels of one process, each tiled by 100-byte ranges: what a TCP conversation leaves. */
function conversation(): EventColumns {
  const columns = new EventColumns("p");
  const channels = [columns.addChannel("tcp:00000001-00000002"), columns.addChannel("tcp:00000002-00000001")];
  for (let row = 0; row < ROWS; row += 1) {
    const begin = (row >> 1) * 100;
    const kind = row % 2 === 0 ? EVENT_KIND.send : EVENT_KIND.receive;
    columns.pushRange(kind, channels[row % 2] as number, begin, begin + 100, row * 1000, 1);
  }
  return columns;
}

const columns = conversation();
const place: BlockPlace = {
  application: "bench",
  chain: 1,
  previousHash: new Uint8Array(32),
  sequence: 1,
  previousBlock: 0,
  previousControl: 0,
  position: 0,
  positionAfter: ROWS,
  greatestCheckpoint: 0,
};
const block = encodeBlock(place, columns);
const blockCopy = new Uint8Array(block.length);

const figures: Figure[] = [];
const floors = new Map<string, number>();

/** Nanoseconds an event; the relative margin of error stands in the name. */
function record(name: string, floor: string | undefined, bench: Benchmark): void {
  const nsPerEvent = (bench.stats.mean * 1e9) / ROWS;
  floors.set(name, nsPerEvent);
  const beside = floor === undefined ? {} : { floor: { name: floor, value: floors.get(floor) as number } };
  figures.push({
    name: `${name} (± ${bench.stats.rme.toFixed(1)} %)`,
    value: nsPerEvent,
    unit: "ns an event",
    ...beside,
  });
}

const steps: readonly (readonly [string, string | undefined, () => void])[] = [
  ["copy of the slots", undefined, () => copy.set(slots)],
  ["ring records to columns", "copy of the slots", () => decodeRecords(words, 0, ROWS, records)],
  ["copy of the block", undefined, () => blockCopy.set(block)],
  ["columns to a block", "copy of the block", () => void encodeBlock(place, columns)],
  ["a block to columns", "copy of the block", () => void decodeBlock(block)],
];
const suite = new Benchmark.Suite();
for (const [name, , work] of steps) suite.add(name, work);
suite.on("cycle", (event: Benchmark.Event) => {
  const bench = event.target as unknown as Benchmark;
  const step = steps.find(([name]) => name === bench.name);
  record(bench.name as string, step?.[1], bench);
});
suite.run();
report(
  `single steps, batches of ${ROWS} events; a block takes ${(block.length / ROWS).toFixed(1)} bytes an event`,
  figures,
);
