// bench: build — events → evidence by worker threads, beside what hashing the same bytes costs.
import { buildEvidence } from "../src/compute/build-evidence.ts";
import { reduceBlocks } from "../src/compute/worker-protocol.ts";
import { sha256 } from "../src/format/block-header.ts";
import { NO_HASH } from "../src/format/log-anchor.ts";
import { BlockPlacer } from "../src/log/block-placer.ts";
import { LogState } from "../src/log/log-state.ts";
import { type Figure, median, report } from "./report.ts";
import { ringBatch } from "./ring-log.ts";

const EVENTS = Number(process.env["RL_BENCH_BUILD_EVENTS"] ?? 480_000_000);
const shape = { processes: 16, interval: 50_000, cuts: true };

async function blocksInMemory(): Promise<Uint8Array[]> {
  const blocks: Uint8Array[] = [];
  const place = { lastChain: 0, lastHash: NO_HASH };
  const placer = new BlockPlacer("ring", new LogState(), place, async (chain) => blocks[chain - 1]);
  for (let round = 0; round * shape.processes * shape.interval < EVENTS; round += 1)
    for (let p = 0; p < shape.processes; p += 1)
      await placer.place(ringBatch(shape, p, round), ({ bytes }) => blocks.push(bytes));
  return blocks;
}

async function timed(work: () => unknown): Promise<number> {
  const begin = performance.now();
  await work();
  return performance.now() - begin;
}

const blocks = await blocksInMemory();
const rounds = Math.ceil(EVENTS / (shape.processes * shape.interval));
const events = rounds * shape.processes * shape.interval;
const bytes = blocks.reduce((sum, { length }) => sum + length, 0);
/** ms → M events/s. */
const rate = (ms: number): number => events / ms / 1000;

/** The memory of blocks is given away: each run gets its own, made before the clock runs. */
function scan(workers: number): Promise<number> {
  return median(3, () => {
    const given = blocks.map((block) => Uint8Array.from(block));
    const source = {
      name: "memory",
      async *blocks(): AsyncGenerator<Uint8Array> {
        yield* given;
      },
    };
    return timed(() => buildEvidence([source], { workers }));
  });
}

const hashing = await median(3, () => timed(() => blocks.forEach((block) => void sha256(block))));
const decoding = await median(3, () => timed(() => void reduceBlocks({ blocks, join: true })));
const alone = await scan(0);
const one = await scan(1);
const two = await scan(2);
const figures: Figure[] = [
  {
    name: `${events / 1e6} M events in ${blocks.length} blocks`,
    value: bytes / events,
    unit: "bytes an event",
  },
  { name: "SHA-256 of all blocks", value: rate(hashing), unit: "M events/s" },
  {
    name: "decode, check and reduce in one thread",
    value: rate(decoding),
    unit: "M events/s",
    floor: { name: "SHA-256 of the same bytes", value: rate(hashing) },
    goal: "≥ 10 M events/s",
    met: rate(decoding) >= 10,
  },
  { name: "evidence, no worker", value: rate(alone), unit: "M events/s" },
  {
    name: "evidence, one worker",
    value: rate(one),
    unit: "M events/s",
    goal: "≥ 10 M events/s",
    met: rate(one) >= 10,
  },
  { name: "evidence, two workers", value: rate(two), unit: "M events/s" },
  {
    name: "two workers against one",
    value: one / two,
    unit: "×",
    goal: "≥ 1.7 ×",
    met: one / two >= 1.7,
  },
];
report("build: events to evidence", figures);
