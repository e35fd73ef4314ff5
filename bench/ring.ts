// bench: the kernel ring into JavaScript columns

import { KernelSource } from "../src/capture/kernel-source.ts";
import { decodeRecords, makeRecordColumns } from "../src/format/ring-record.ts";
import { RingRig } from "../test/native/ring-rig.ts";
import { median, report } from "./report.ts";

const RING_BYTES = 16 << 20;
const RECORDS = RING_BYTES / 64 - 1;
const BATCH = 4096;
const rig = new RingRig("ring-bench", RING_BYTES);
const source = KernelSource.attach(rig.ringPath, RING_BYTES);
const bytes = new Uint8Array(BATCH * 64);
const words = new Uint32Array(bytes.buffer);
const columns = makeRecordColumns(BATCH);

/** Reads and decodes what is there and lets it go; returns the number of records. */
function readAll(decode: boolean): number {
  let read = 0;
  for (;;) {
    const { records, position } = source.drain(bytes);
    if (decode) decodeRecords(words, 0, records, columns);
    read += records;
    source.commit(position);
    if (records < BATCH) return read;
  }
}

/** Records per second of reading a ring that is full. */
async function fullRing(decode: boolean): Promise<number> {
  await rig.produce(RECORDS, 7, 64);
  const start = performance.now();
  const read = readAll(decode);
  if (read !== RECORDS) throw new Error(`read ${read} of ${RECORDS}`);
  return read / ((performance.now() - start) / 1000);
}

/** The floor: the same bytes copied batch by batch from memory to memory. */
function copyRate(): number {
  const from = new Uint8Array(RING_BYTES).fill(1);
  const start = performance.now();
  for (let at = 0; at < RING_BYTES; at += bytes.length) bytes.set(from.subarray(at, at + bytes.length));
  return RING_BYTES / 64 / ((performance.now() - start) / 1000);
}

/** A producer at full speed and the reader beside it: records per second that arrived, and how many were dropped. */
async function live(count: number): Promise<{ rate: number; lost: number }> {
  let done = false;
  const produced = rig.produce(count, 7, 64).finally(() => {
    done = true;
  });
  let read = 0;
  while (!done) {
    read += readAll(true);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
  read += readAll(true);
  const { emitted, lost, seconds } = await produced;
  if (read !== emitted) throw new Error(`read ${read} of ${emitted}`);
  return { rate: emitted / seconds, lost };
}

const floor = { name: "memcpy", value: (await median(9, copyRate)) / 1e6 };
await fullRing(true);
const copied = (await median(7, () => fullRing(false))) / 1e6;
const decoded = (await median(7, () => fullRing(true))) / 1e6;
const { rate, lost } = await live(20_000_000);
report("kernel ring into JavaScript", [
  { name: "drain", value: copied, unit: "M records/s", floor },
  { name: "drain and decode into columns", value: decoded, unit: "M records/s", floor },
  {
    name: "live beside a producer at full speed",
    value: rate / 1e6,
    unit: "M records/s",
    goal: `≥ 2 M/s, none dropped (${lost} dropped)`,
    met: rate >= 2e6 && lost === 0,
  },
]);
source.close();
rig.remove();
