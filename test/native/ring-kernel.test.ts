import { execFileSync } from "node:child_process";
import { dirname } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { KernelSource } from "../../src/capture/kernel-source.ts";
import { decodeRecords, makeRecordColumns } from "../../src/format/ring-record.ts";
import { lockReader } from "../../src/host/reader-lock.ts";
import { RingRig } from "./ring-rig.ts";

const RING_BYTES = 1 << 20;
let rig: RingRig;
let source: KernelSource;

beforeEach(() => {
  rig = new RingRig("ring-test", RING_BYTES);
  source = KernelSource.attach(rig.ringPath, RING_BYTES);
});
afterEach(() => {
  source.close();
  rig.remove();
});

const batch = new Uint8Array(4096 * 64);
const columns = makeRecordColumns(4096);

/** Reads everything there is; returns [begin, kind, position] of each record. */
function readAll(): number[][] {
  const rows: number[][] = [];
  for (;;) {
    const { records } = source.drain(batch);
    if (records === 0) return rows;
    decodeRecords(new Uint32Array(batch.buffer), 0, records, columns);
    for (let row = 0; row < records; row += 1)
      rows.push([columns.begin[row]!, columns.kind[row]!, columns.position[row]!]);
  }
}

test("records of the live kernel ring come whole, in order, again until committed, and many times around", async () => {
  let serial = 0;
  for (let round = 0; round < 5; round += 1) {
    const { emitted, lost } = await rig.produce(10_000, 42, 1);
    expect([emitted, lost]).toEqual([10_000, 0]);
    const rows = readAll();
    expect(rows.map(([begin]) => begin)).toEqual(Array.from({ length: 10_000 }, (_, i) => (i >> 1) * 100));
    expect(rows.every(([, , position]) => position === 64 * serial++)).toBe(true);
    expect([...new Set(columns.process.subarray(0, columns.count))]).toEqual([42]);
    source.rewind();
    expect(readAll()).toEqual(rows);
    expect(source.fillBytes()).toBe(640_000);
    source.commit(source.readPosition());
    expect([source.fillBytes(), source.producerPosition()]).toEqual([0, serial * 64]);
  }
});

test("what finds no room is told by the next record", async () => {
  const slots = RING_BYTES / 64;
  const { emitted, lost } = await rig.produce(slots + 1000, 42, 4);
  // One slot stays free: the kernel never lets the producer catch up with the consumer.
  expect(emitted + lost).toBe(slots + 1000);
  expect(lost).toBeGreaterThanOrEqual(1000);
  expect(readAll().length).toBe(emitted);
});

test("above half full the kernel's wake-up reaches JavaScript, once a rise and not while data merely waits", async () => {
  let wakes = 0;
  source.onWake(() => {
    wakes += 1;
  });
  await rig.produce(1000, 42, 1);
  await new Promise((resolve) => setTimeout(resolve, 30));
  const calm = wakes; // adding to the epoll may tell once that something is there
  expect(calm).toBeLessThanOrEqual(1);
  await rig.produce(10_000, 42, 1);
  await expect.poll(() => wakes, { timeout: 30_000 }).toBeGreaterThan(calm);
  let before = calm;
  const quiet = () => {
    const same = wakes === before;
    before = wakes;
    return same;
  };
  await expect.poll(quiet, { interval: 50, timeout: 30_000 }).toBe(true);
});

test("a second reader is told who reads; a closed or foreign handle is misuse", () => {
  const child = `
    const addon = require("node-gyp-build")(${JSON.stringify(process.cwd())});
    try { addon.lock(${JSON.stringify(`${dirname(rig.ringPath)}/reader`)}); } catch (error) { console.log(error.errno); }`;
  expect(execFileSync(process.execPath, ["-e", child], { encoding: "utf8" })).toBe("11\n");
  const locked = () => lockReader(dirname(rig.ringPath));
  expect(locked).toThrow(
    expect.objectContaining({
      code: "RL_LOCKED",
      message: expect.stringContaining(`process ${process.pid}`),
    }),
  );
  source.close();
  locked()();
  expect(() => source.fillBytes()).toThrow(/closed/);
  expect(() => KernelSource.attach("/sys/fs/bpf/nothing", 4096)).toThrow();
});
