/** A home with logs of two applications, written as collectors write them, of about the size that is asked for. */
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join, relative } from "node:path";
import { planCollection, rulesToKeep } from "../../src/gc/gc.ts";
import { EventLog } from "../../src/log/event-log.ts";
import { readEvidence } from "../../src/logs/read-evidence.ts";
import type { Event } from "../../src/model/event.ts";
import { Random } from "../reference/random.ts";
import { columnsOf, commitOf } from "../unit/log-rig.ts";

const EVENTS_A_ROUND = 150;
/** What a round takes on disk, measured so that the home has at least the bytes that are asked for; in a small home segments are small. */
const BYTES_A_ROUND = { small: 3100, large: 2750 } as const;
const SMALL_HOME_BYTES = 256 * 1024;
/** Of a LOG file. */
const NOTES_BYTES = 250;

/** Two processes that talk in rounds; each round ends in checkpoints of both. Seeded times: blocks do not repeat. */
function round(n: number, random: Random): readonly [Event[], Event[]] {
  const ranges = Array.from({ length: EVENTS_A_ROUND }, (_, k) => {
    const begin = n * EVENTS_A_ROUND + k;
    return { channel: "ab", begin, end: begin + 1, time: 1e15 + n * 1e9 + k * 1e6 + random.below(1e6) };
  });
  const end = (n + 1) * EVENTS_A_ROUND;
  const checkpoint = (process: string, sent: object, received: object): Event => ({
    type: "checkpoint",
    process,
    checkpoint: n + 1,
    usable: true,
    cut: { sent: new Map(Object.entries(sent)), received: new Map(Object.entries(received)) },
  });
  return [
    [
      ...ranges.map((range): Event => ({ type: "send", process: "a", ...range })),
      ...(n % 8 === 2 ? [{ type: "gap", process: "a", lost: 7 } as const] : []),
      checkpoint("a", { ab: end }, {}),
    ],
    [
      ...ranges.map((range): Event => ({ type: "receive", process: "b", ...range })),
      checkpoint("b", {}, { ab: end }),
    ],
  ];
}

function filesIn(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) =>
    entry.isDirectory() ? filesIn(join(folder, entry.name)) : [join(folder, entry.name)],
  );
}

/** LevelDB removes tables in the background meanwhile. */
interface Filling {
  /** How much to write, about. */
  readonly bytes: number;
  readonly bytesARound: number;
  readonly segmentBytes: number;
  /** After so many the log is opened anew: LevelDB turns its WAL into a table. */
  readonly roundsALife: number;
  /** Each life ends with a segment that is sealed. */
  readonly seal?: boolean;
}

/** Writes rounds from number `from` on; the last life leaves a WAL. Returns the next round. */
async function fill(
  dir: string,
  from: number,
  { bytes, bytesARound, segmentBytes, roundsALife, seal }: Filling,
): Promise<number> {
  const random = new Random(bytes);
  const to = from + Math.ceil(bytes / bytesARound);
  let n = from;
  while (n < to) {
    const log = await EventLog.open(dir, { create: false, segmentBytes });
    for (const end = Math.min(to, n + roundsALife); n < end; n += 1) {
      const [a, b] = round(n, random);
      log.putState("ring", { id: "seeded", position: n * 64 });
      await commitOf(log, columnsOf(a), columnsOf(b));
    }
    if (seal) await log.rotate();
    await log.close();
  }
  return n;
}

/** With events of a third process, whose name is not ASCII; the first is one that keeps the log from being pruned, if `stable`. */
async function begin(dir: string, stable: boolean): Promise<void> {
  const log = await EventLog.open(dir, { create: true });
  const process = "caf\u00e9";
  const events: Event[] = [{ type: "send", process, channel: "ca", begin: 0, end: 3 }];
  if (stable) events.unshift({ type: "stable", process });
  await commitOf(log, columnsOf(events));
  await log.close();
}

async function prune(dir: string): Promise<void> {
  const log = await EventLog.open(dir, { create: false });
  const evidence = await readEvidence(log.readBlocks());
  const { base } = await log.planPrune(planCollection(evidence, rulesToKeep(evidence)).oldest);
  if (base === undefined) throw new Error("nothing can be pruned");
  await (await log.prune(base)).removed;
  await log.close();
}

/**
 * Writes the home: one log whose first segment is a WAL of half the home, and whose others are small, with tables; and one that was pruned.
 * Files and sizes are always the same; what LevelDB notes in its LOG files is not, and is cut to one size.
 */
export async function writeHome(home: string, bytes: number): Promise<void> {
  const segmentBytes = Math.min(bytes / 11, 24 * 1024);
  const bytesARound = BYTES_A_ROUND[bytes > SMALL_HOME_BYTES ? "large" : "small"];
  const small = { bytesARound, segmentBytes, roundsALife: 4 };
  const whole = join(home, "whole");
  await begin(whole, true);
  const first = Math.min(bytes * 0.56, 80 * 1024);
  const next = await fill(whole, 0, {
    bytes: first,
    bytesARound,
    segmentBytes: bytes,
    roundsALife: Infinity,
    seal: true,
  });
  await fill(whole, next, { ...small, bytes: bytes * 0.72 - first });
  const pruned = join(home, "pruned");
  await begin(pruned, false);
  const after = await fill(pruned, 0, { ...small, bytes: bytes * 0.1 });
  await prune(pruned);
  await fill(pruned, after, { ...small, bytes: bytes * 0.16 });
  for (const path of filesIn(home))
    if (/LOG(\.old)?$/.test(path))
      writeFileSync(path, readFileSync(path).toString("latin1").padEnd(NOTES_BYTES).slice(0, NOTES_BYTES));
}

/** The files of a folder, by their paths inside it. */
export function readFiles(folder: string): Map<string, Buffer> {
  return new Map(filesIn(folder).map((path) => [relative(folder, path), readFileSync(path)]));
}
