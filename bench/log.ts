// bench: events into the log, durable, beside a bare LevelDB loop; bytes an event takes; reading back
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { join } from "node:path";
import { Level } from "level";
import { decodeBlock } from "../src/format/block.ts";
import { EVENT_KIND, EventColumns } from "../src/format/event-columns.ts";
import { EventLog } from "../src/log/event-log.ts";
import { readLog } from "../src/log/segment-reader.ts";
import { type Figure, report } from "./report.ts";

const SLOT = 64;
const VALUE_BYTES = 256 * 1024;
const CONNECTIONS = 64;
const COUNT = 2_000_000;
const TURNS = 3;
/** On the disk the logs live on, not in memory. */
mkdirSync("build", { recursive: true });
const scratch = mkdtempSync(join(process.cwd(), "build", "bench-log-"));
process.on("exit", () => rmSync(scratch, { recursive: true, force: true }));
let runs = 0;

/** A small fixed generator: every run sees the same events. */
function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

/** TCP traffic as a server sees it: requests of some hundred bytes, answers of up to 64 KiB, some µs apart. */
function traffic(count: number): EventColumns {
  const next = random(7);
  const columns = new EventColumns("server");
  const channels = Array.from({ length: CONNECTIONS * 2 }, (_, n) =>
    columns.addChannel(
      `tcp:${(0x1000_0000 + n * 7919).toString(16)}-${(0x2000_0000 + n * 104729).toString(16)}`,
    ),
  );
  const at = new Float64Array(channels.length);
  let time = 1.7e18;
  for (let row = 0; row < count; row += 1) {
    const connection = Math.floor(next() * CONNECTIONS);
    const sends = next() < 0.5;
    const channel = connection * 2 + (sends ? 1 : 0);
    const begin = at[channel]!;
    const end = begin + 1 + Math.floor(next() * (sends ? 65_536 : 600));
    at[channel] = end;
    time += 256 * Math.floor(1 + next() * 40);
    const kind = sends ? EVENT_KIND.send : EVENT_KIND.receive;
    columns.pushRange(kind, channels[channel]!, begin, end, time, 1000 + (connection % 8));
  }
  return columns;
}

/** The floor: raw slots, 4096 a value, each put synced before the next. Events per second. */
async function bareLoop(): Promise<number> {
  const db = new Level<string, Uint8Array>(join(scratch, `bare-${runs++}`), { valueEncoding: "view" });
  await db.open();
  const value = new Uint8Array(VALUE_BYTES);
  const next = random(3);
  for (let at = 0; at < value.length; at += 4) value[at] = next() * 256;
  const values = Math.floor((COUNT * SLOT) / VALUE_BYTES);
  const start = performance.now();
  for (let i = 0; i < values; i += 1) await db.put(String(i).padStart(9, "0"), value, { sync: true });
  const seconds = (performance.now() - start) / 1000;
  await db.close();
  return (values * VALUE_BYTES) / SLOT / seconds;
}

interface Written {
  readonly dir: string;
  readonly rate: number;
}

/** Appends and commits `perCommit` events at a time; each commit is awaited: synced and covered by the anchor. */
async function write(events: EventColumns, perCommit: number): Promise<Written> {
  const dir = join(scratch, `log-${runs++}`);
  const log = await EventLog.open(dir, { create: true });
  const batch = new EventColumns(events.process);
  const start = performance.now();
  for (let from = 0; from < events.count; from += perCommit) {
    batch.count = 0;
    batch.appendRows(events, from, Math.min(events.count, from + perCommit));
    await log.append(batch);
    log.putState("ring", { position: from * SLOT });
    await log.commit();
  }
  const rate = events.count / ((performance.now() - start) / 1000);
  await log.close();
  return { dir, rate };
}

async function read(dir: string, count: number): Promise<{ rate: number; bytes: number }> {
  const start = performance.now();
  let [events, bytes] = [0, 0];
  for await (const block of readLog(dir)) {
    events += decodeBlock(block).columns.count;
    bytes += block.length;
  }
  if (events !== count) throw new Error(`read ${events} of ${count}`);
  return { rate: events / ((performance.now() - start) / 1000), bytes: bytes / events };
}

function middle(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)]!;
}

/** Turns alternate: the disk's mood changes, and both sides must see the same one. */
async function beside(events: EventColumns, perCommit: number): Promise<{ figure: Figure; dir: string }> {
  const [bare, rates]: [number[], number[]] = [[], []];
  let dir = "";
  for (let turn = 0; turn < TURNS; turn += 1) {
    bare.push(await bareLoop());
    const written = await write(events, perCommit);
    rates.push(written.rate);
    dir = written.dir;
  }
  const [floor, rate] = [middle(bare), middle(rates)];
  const figure: Figure = {
    name: `append and commit, ${perCommit} events a commit`,
    value: rate / 1e6,
    unit: "M events/s",
    floor: { name: "bare 256 KiB synced put loop", value: floor / 1e6 },
    goal: "≥ 70 % of the bare loop",
    met: rate >= 0.7 * floor,
  };
  return { figure, dir };
}

const events = traffic(COUNT);
const small = await beside(events, 4096);
const large = await beside(events, 65_536);
const back = await read(small.dir, events.count);
report("log: events to LevelDB, durable", [
  small.figure,
  large.figure,
  { name: "a TCP event", value: back.bytes, unit: "bytes", goal: "≤ 12 bytes", met: back.bytes <= 12 },
  { name: "read back, checked and decoded", value: back.rate / 1e6, unit: "M events/s" },
]);
