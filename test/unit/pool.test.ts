/** Law 12 on real threads: the same evidence for any number of workers, any partition, any order of arrival; and no answer without all. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import fc from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";
import { StretchAssembler } from "../../src/compute/assemble-stretches.ts";
import { buildEvidence } from "../../src/compute/build-evidence.ts";
import { partition } from "../../src/compute/partition.ts";
import { type ReduceAnswer, type ReduceTask, reduceBlocks } from "../../src/compute/worker-protocol.ts";
import { EVENT_KIND, EventColumns } from "../../src/format/event-columns.ts";
import { WorkerPool } from "../../src/host/worker-pool.ts";
import { hasCode } from "../../src/model/errors.ts";
import { build } from "../built.ts";
import { anyEvents, numRuns } from "../property/cases.ts";
import { evidenceOf } from "../property/laws-executions.ts";
import { Random } from "../reference/random.ts";
import { sized } from "../size.ts";
import { MemoryLog, memoryLog } from "./memory-log.ts";

let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "recovery-line-pool-"));
  build(); // threads run what is compiled
}, 120_000);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const named = (log: MemoryLog, name = "here") => ({ name, blocks: () => log.blocks() });

const ROWS = sized(20_000, 5000);

/** Eight processes on a ring with some control events, large enough for many tasks. */
async function ringLog(rows = 20_000, stable = false): Promise<MemoryLog> {
  const log = new MemoryLog();
  for (let round = 0; round < 3; round += 1)
    for (let p = 0; p < 8; p += 1) {
      const columns = new EventColumns(`p${p}`);
      const right = columns.addChannel(`c${p}`);
      const left = columns.addChannel(`c${(p + 7) % 8}`);
      for (let i = round * rows; i < (round + 1) * rows; i += 1) {
        const channel = i % 2 === 0 ? right : left;
        const at = Math.floor(i / 2);
        columns.pushRange(
          i % 2 === 0 ? EVENT_KIND.send : EVENT_KIND.receive,
          channel,
          at,
          at + 1,
          i * 1000,
          1,
        );
      }
      columns.push({ type: "checkpoint", process: `p${p}`, checkpoint: round + 1, usable: true });
      if (round === 1 && p % 2 === 0) columns.push({ type: "gap", process: `p${p}`, lost: p });
      if (stable && round === 2 && p === 5) columns.push({ type: "stable", process: "p5" });
      await log.append(columns);
    }
  return log;
}

test("one to four workers and none give the same evidence, byte for byte", async () => {
  const all = [1, 2, 3, 4];
  for (const [stable, counts] of [
    [false, all],
    [true, sized(all, [2])],
  ] as const) {
    const log = await ringLog(ROWS, stable);
    const alone = await buildEvidence([named(log)], { workers: 0 });
    for (const workers of counts) {
      const together = await buildEvidence([named(log)], { workers, taskBytes: 1.5 * ROWS });
      expect(isDeepStrictEqual(together, alone)).toBe(true);
    }
    // Without joins all rows stay, with joins two a checkpoint.
    expect(alone.rows.line.length > 5 * ROWS).toBe(stable);
  }
});

test("any partition and any order of arrival give the same evidence", async () => {
  const anyLog = fc.array(fc.nat(4), { minLength: 1, maxLength: 5 });
  await fc.assert(
    fc.asyncProperty(anyEvents, anyLog, fc.integer(), fc.nat(800), async (events, sizes, seed, taskBytes) => {
      const log = await memoryLog(events, sizes);
      const answers: { index: number; answer: ReduceAnswer }[] = [];
      for await (const { index, blocks } of partition([named(log)], taskBytes))
        answers.push({ index, answer: reduceBlocks({ blocks, join: false }) });
      const assembler = new StretchAssembler(false, []);
      for (const { index, answer } of new Random(seed).shuffle(answers))
        if (answer.kind === "stretches") assembler.accept(index, answer.stretches, "here");
      expect(assembler.build()).toEqual(evidenceOf(events, []));
    }),
    { numRuns },
  );
});

test("a missing stretch is no evidence", async () => {
  const log = await ringLog(100);
  const assembler = new StretchAssembler(true, [named(log)]);
  for await (const { index, blocks } of partition([named(log)], 1000)) {
    const answer = reduceBlocks({ blocks, join: true });
    if (index !== 2 && answer.kind === "stretches") assembler.accept(index, answer.stretches, "here");
  }
  expect(() => assembler.build()).toThrow(TypeError);
});

test("a damaged block is named, a missing one too, with threads and without", async () => {
  const log = await ringLog();
  const flipped = new MemoryLog();
  for (const [chain, bytes] of log.bytes) flipped.bytes.set(chain, Uint8Array.from(bytes));
  (flipped.bytes.get(20) as Uint8Array)[170]! ^= 1;
  const short = new MemoryLog();
  for (const [chain, bytes] of log.bytes) if (chain !== 30) short.bytes.set(chain, Uint8Array.from(bytes));
  for (const workers of [0, 2]) {
    const damaged = buildEvidence([named(flipped)], { workers, taskBytes: 30_000 });
    await expect(damaged).rejects.toSatisfy((error) => hasCode(error, "RL_BAD_BLOCK"));
    const holed = buildEvidence([named(short)], { workers, taskBytes: 30_000 });
    await expect(holed).rejects.toSatisfy((error) => hasCode(error, "RL_CORRUPT_LOG"));
  }
});

test("blocks that are not the chain of the anchor are refused: cut off, replaced, of another application", async () => {
  const log = await ringLog(2000);
  const other = await ringLog(2001);
  const { ends } = log;
  const forged = {
    "cut off": [...log.bytes.values()].slice(0, -1),
    replaced: [...log.bytes].map(([chain, bytes]) => (chain === 12 ? other.bytes.get(12)! : bytes)),
    "another last one": [...log.bytes].map(([chain, bytes]) =>
      chain === ends.lastChain ? other.bytes.get(chain)! : bytes,
    ),
    swapped: [...log.bytes].map(([chain]) => log.bytes.get(chain === 5 ? 6 : chain === 6 ? 5 : chain)!),
  };
  const scan = (blocks: readonly Uint8Array[], chain = ends) =>
    buildEvidence(
      [
        {
          name: "here",
          ends: chain,
          async *blocks() {
            for (const bytes of blocks) yield Uint8Array.from(bytes);
          },
        },
      ],
      { workers: 0, taskBytes: 3000 },
    );
  for (const [how, blocks] of Object.entries(forged))
    await expect(scan(blocks), how).rejects.toSatisfy((error) => hasCode(error, "RL_CORRUPT_LOG"));
  const foreign = scan([...log.bytes.values()], { ...ends, application: "elsewhere" });
  await expect(foreign).rejects.toSatisfy((error) => hasCode(error, "RL_CORRUPT_LOG"));
  await expect(scan([...log.bytes.values()])).resolves.toBeDefined();
});

test("a process in two logs is a contradiction that names both", async () => {
  const log = await ringLog(100);
  const both = buildEvidence([named(log, "/one"), named(log, "/two")], { workers: 0 });
  await expect(both).rejects.toThrow(/process "p0" is in the logs of \/one and of \/two/);
});

/** Workers that end in the middle of a task, each in its own way. */
const deaths: Record<string, string> = {
  exit: "export default () => process.exit(3);",
  throw: 'export default () => { throw new Error("broken"); };',
  reject: 'export default async () => { throw new Error("broken later"); };',
  heap: "export default () => { const all = []; for (;;) all.push({ a: [all.length] }); };",
  uncaught: 'export default () => new Promise(() => setTimeout(() => { throw new Error("stray"); }, 5));',
};

for (const [way, code] of Object.entries(deaths))
  test(`a worker's death (${way}) is RL_WORKER, never a hang`, async () => {
    const file = join(folder, `${way}.mjs`);
    writeFileSync(file, code);
    const pool = new WorkerPool<ReduceTask, ReduceAnswer>(2, file, 16);
    try {
      const tasks = [1, 2, 3].map(() => pool.run({ blocks: [], join: true }, []));
      for (const task of await Promise.allSettled(tasks)) {
        expect(task.status).toBe("rejected");
        expect(hasCode((task as PromiseRejectedResult).reason, "RL_WORKER")).toBe(true);
      }
    } finally {
      await pool.close();
    }
  });

test("a worker file that is not there is RL_WORKER", async () => {
  const pool = new WorkerPool<ReduceTask, ReduceAnswer>(1, join(folder, "nothing.mjs"));
  const task = pool.run({ blocks: [], join: true }, []);
  await expect(task).rejects.toSatisfy((error) => hasCode(error, "RL_WORKER"));
  await pool.close();
});

test("abort ends a scan with the signal's reason, also while workers work", async () => {
  const log = await ringLog();
  for (const workers of [0, 2]) {
    const stop = new AbortController();
    const progress = (bytes: number): void => {
      if (bytes > 100_000) stop.abort(new Error("enough"));
    };
    const scan = buildEvidence([named(log)], { workers, taskBytes: 30_000, signal: stop.signal, progress });
    await expect(scan).rejects.toThrow("enough");
  }
});

test("a source that fails ends the scan with its error", async () => {
  const log = await ringLog();
  async function* failing() {
    let blocks = 0;
    for await (const bytes of log.blocks()) {
      if (++blocks === 20) throw new Error("the collector went away");
      yield bytes;
    }
  }
  for (const workers of [0, 2]) {
    const scan = buildEvidence([{ name: "here", blocks: failing }], { workers, taskBytes: 30_000 });
    await expect(scan).rejects.toThrow("the collector went away");
  }
});

test("an empty log is empty evidence", async () => {
  const evidence = await buildEvidence([named(new MemoryLog())], { workers: 2 });
  expect(evidence).toEqual(evidenceOf([], []));
});
