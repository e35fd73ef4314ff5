/** The payload log of one application on disk (logs-format.md, "Payload log"), while its logger may be writing. */

import { lstatSync } from "node:fs";
import { type FileHandle, open, readdir, unlink } from "node:fs/promises";
import { join } from "node:path";
import { syncFolder } from "../host/replace-file.ts";
import { Serial } from "../host/serial.ts";
import { RecoveryLineError } from "../model/errors.ts";
import { MAX_OFFSET, MAX_PAYLOAD_READ_BYTES } from "../model/limits.ts";
import type { PayloadRange, PayloadStore } from "../model/payload-store.ts";
import { Filling } from "./payload-filling.ts";
import {
  appendForgotten,
  type Forgotten,
  type ForgottenPlace,
  readForgotten,
  rewriteForgotten,
} from "./payload-forgotten.ts";
import { addRange, subtractRange } from "./payload-ranges.ts";
import {
  type PayloadRecord,
  RECORD_HEADER_BYTES,
  readPayload,
  readSegmentKey,
  SEGMENT_HEADER_BYTES,
  scanSegment,
} from "./payload-segment.ts";

/** Below the application's log directory; that it is there means that payloads are kept. */
export const PAYLOAD_FOLDER = "payload";
const SEGMENT_NAME = /^([0-9]{6,10})\.payload$/;
/** In anything shorter there may be no whole block of the disk to give back. */
const LEAST_PUNCHED_BYTES = 8192;

export interface ChannelRange extends PayloadRange {
  readonly channel: string;
}

export interface PayloadFigures {
  readonly segments: number;
  /** Bytes that found no room in the kernel's ring. */
  readonly lostBytes: number;
  /** Bytes of segments that hold no whole record. */
  readonly damagedBytes: number;
}

/** Gives bytes of a segment back to the disk: the length of the file stays, the ranges read as zeros. */
export type PunchHoles = (file: string, ranges: readonly PayloadRange[]) => Promise<void>;

/** `read` throws RL_CORRUPT_LOG, and RL_LIMIT for more than MAX_PAYLOAD_READ_BYTES. Callers of `cutBack` and `prune` hold the lock of the collection. */
export interface PayloadLog extends PayloadStore {
  /** Names of all channels of which any byte is there, sorted. */
  channels(): Promise<readonly string[]>;
  figures(): Promise<PayloadFigures>;
  /** Gives up ranges that no replay needs, and gives their room back to the disk. */
  prune(ranges: readonly ChannelRange[], punch: PunchHoles): Promise<void>;
}

/** `appDir` is `<home>/<app>`. Undefined where no payloads are kept. */
export function openPayloadStore(appDir: string): PayloadLog | undefined {
  const folder = join(appDir, PAYLOAD_FOLDER);
  const stat = lstatSync(folder, { throwIfNoEntry: false });
  return stat?.isDirectory() === true ? new SegmentedLog(folder) : undefined;
}

/** Acts with the payload log open, on undefined where no payloads are kept. */
export async function withPayloadLog<T>(
  appDir: string,
  act: (log: PayloadLog | undefined) => Promise<T>,
): Promise<T> {
  const log = openPayloadStore(appDir);
  try {
    return await act(log);
  } finally {
    await log?.close();
  }
}

interface Segment {
  readonly file: FileHandle;
  /** Undefined: its header is damaged, nothing of it counts. */
  readonly key: Uint8Array | undefined;
  /** Up to here its records are known. */
  scanned: number;
  sizeBytes: number;
  records: PayloadRecord[];
  lostBytes: number;
  damagedBytes: number;
}

class SegmentedLog implements PayloadLog {
  readonly #folder: string;
  /** Who asks waits until the one before is done: what it reads by would change under it. */
  readonly #serial = new Serial();
  readonly #segments = new Map<number, Segment>();
  /** Records by channel, in the order of the log. */
  readonly #records = new Map<string, PayloadRecord[]>();
  #forgotten = new Map<string, Forgotten[]>();

  constructor(folder: string) {
    this.#folder = folder;
  }

  async read(channel: string, begin: number, end: number): Promise<Uint8Array | undefined> {
    checkRange(begin, end);
    if (end - begin > MAX_PAYLOAD_READ_BYTES)
      throw new RecoveryLineError(
        "RL_LIMIT",
        `${end - begin} bytes of a channel are too many to be read at once`,
      );
    if (begin === end) return new Uint8Array(0);
    return this.#refreshed(() => this.#read(channel, begin, end));
  }

  async #read(channel: string, begin: number, end: number): Promise<Uint8Array | undefined> {
    if (this.#urgent(channel).some((offset) => offset >= begin && offset < end)) return undefined;
    const wanted = { begin, end };
    const filling = new Filling(wanted);
    for (const record of this.#records.get(channel) ?? [])
      if (record.begin < end && record.end > begin && !(await this.#fill(filling, record, wanted)))
        return undefined;
    return filling.whole ? filling.bytes : undefined;
  }

  /** False where two records disagree: then neither is believed. */
  async #fill(filling: Filling, record: PayloadRecord, { begin, end }: PayloadRange): Promise<boolean> {
    const parts = this.#live(record)
      .map((part) => ({ begin: Math.max(part.begin, begin), end: Math.min(part.end, end) }))
      .filter((part) => part.begin < part.end);
    if (parts.length === 0) return true;
    const bytes = await readPayload(this.#segments.get(record.segment)!.file, record);
    return bytes === undefined || parts.every((part) => filling.take(part, bytes, record.begin));
  }

  ranges(channel: string): Promise<readonly PayloadRange[]> {
    return this.#refreshed(() => this.#ranges(channel));
  }

  #ranges(channel: string): PayloadRange[] {
    let ranges: PayloadRange[] = [];
    for (const record of this.#records.get(channel) ?? [])
      for (const part of this.#live(record)) addRange(ranges, part);
    for (const urgent of this.#urgent(channel))
      ranges = subtractRange(ranges, { begin: urgent, end: urgent + 1 });
    return ranges;
  }

  channels(): Promise<readonly string[]> {
    return this.#refreshed(() =>
      [...this.#records.keys()].filter((channel) => this.#ranges(channel).length > 0).sort(),
    );
  }

  figures(): Promise<PayloadFigures> {
    return this.#refreshed(() => {
      const segments = [...this.#segments.values()];
      return {
        segments: segments.length,
        lostBytes: segments.reduce((sum, { lostBytes }) => sum + lostBytes, 0),
        damagedBytes: segments.reduce((sum, { damagedBytes }) => sum + damagedBytes, 0),
      };
    });
  }

  async cutBack(channel: string, from: number): Promise<void> {
    checkRange(from, MAX_OFFSET);
    await this.#refreshed(() => this.#forget([{ channel, begin: from, end: MAX_OFFSET }]));
  }

  prune(ranges: readonly ChannelRange[], punch: PunchHoles): Promise<void> {
    return this.#refreshed(async () => {
      await this.#forget(ranges);
      const newest = this.#end().segment;
      for (const number of [...this.#segments.keys()])
        if (number < newest) await this.#release(number, punch);
      await syncFolder(this.#folder);
      await this.#dropMoot();
    });
  }

  close(): Promise<void> {
    return this.#serial.run(async () => {
      for (const { file } of this.#segments.values()) await file.close();
      this.#segments.clear();
      this.#records.clear();
    });
  }

  #refreshed<T>(work: () => Promise<T> | T): Promise<T> {
    return this.#serial.run(async () => {
      await this.#refresh();
      return work();
    });
  }

  /** Only what hides a byte is written down. */
  async #forget(ranges: readonly ChannelRange[]): Promise<void> {
    const place = this.#end();
    const entries = ranges
      .filter((range) => this.#hidesAny(range))
      .map(({ channel, begin, end }) => ({ channel, begin, end, ...place }));
    await appendForgotten(this.#folder, entries);
    await this.#readForgotten();
  }

  #hidesAny({ channel, begin, end }: ChannelRange): boolean {
    return (this.#records.get(channel) ?? []).some((record) =>
      this.#live(record).some((part) => part.begin < end && part.end > begin),
    );
  }

  /** A segment of which nothing counts goes; of others the records that no longer count. */
  async #release(number: number, punch: PunchHoles): Promise<void> {
    const { records, file } = this.#segments.get(number)!;
    const path = join(this.#folder, segmentName(number));
    const dead = records.filter((record) => this.#live(record).length === 0);
    if (dead.length === records.length) {
      await unlink(path);
      await file.close();
      this.#removeSegment(number);
      return;
    }
    const large = dead.filter(({ begin, end }) => end - begin >= LEAST_PUNCHED_BYTES);
    if (large.length > 0)
      await punch(
        path,
        large.map(({ position, begin, end }) => ({
          begin: position + RECORD_HEADER_BYTES,
          end: position + RECORD_HEADER_BYTES + end - begin,
        })),
      );
  }

  /** Entries that speak only of segments that are gone. */
  async #dropMoot(): Promise<void> {
    const oldest = Math.min(...this.#segments.keys());
    const all = [...this.#forgotten.values()].flat();
    const kept = all.filter(({ segment }) => segment >= oldest);
    if (kept.length === all.length) return;
    await rewriteForgotten(this.#folder, kept);
    await this.#readForgotten();
  }

  /** Where the log ends now. */
  #end(): ForgottenPlace {
    const segment = Math.max(0, ...this.#segments.keys());
    return { segment, position: this.#segments.get(segment)?.sizeBytes ?? 0 };
  }

  /** What of a record still counts. */
  #live({ channel, begin, end, segment, position }: PayloadRecord): PayloadRange[] {
    let parts: PayloadRange[] = [{ begin, end }];
    for (const gone of this.#forgotten.get(channel) ?? [])
      if (segment < gone.segment || (segment === gone.segment && position < gone.position))
        parts = subtractRange(parts, gone);
    return parts;
  }

  /** Offsets of urgent bytes: whether the receiver takes them out of line, and when, no replay can repeat. */
  #urgent(channel: string): number[] {
    return (this.#records.get(channel) ?? []).flatMap((record) => {
      const { urgent } = record;
      if (urgent === undefined) return [];
      return this.#live(record).some(({ begin, end }) => urgent >= begin && urgent < end) ? [urgent] : [];
    });
  }

  /** The logger may be writing: looks for what is new. */
  async #refresh(): Promise<void> {
    const found = new Set<number>();
    for (const name of await readdir(this.#folder)) {
      const number = Number(SEGMENT_NAME.exec(name)?.[1] ?? 0);
      if (number > 0 && name === segmentName(number)) found.add(number);
    }
    for (const [number, { file }] of [...this.#segments])
      if (!found.has(number)) {
        await file.close();
        this.#removeSegment(number);
      }
    for (const number of [...found].sort((a, b) => a - b)) await this.#scan(number);
    await this.#readForgotten();
  }

  async #scan(number: number): Promise<void> {
    const segment = this.#segments.get(number) ?? (await this.#openSegment(number));
    if (segment === undefined) return;
    segment.sizeBytes = (await segment.file.stat()).size;
    if (segment.key === undefined || segment.sizeBytes <= segment.scanned) return;
    const scan = await scanSegment(segment.file, number, segment.key, segment.scanned);
    segment.scanned = scan.position;
    segment.lostBytes += scan.lostBytes;
    segment.damagedBytes += scan.damagedBytes;
    for (const record of scan.records) {
      segment.records.push(record);
      const known = this.#records.get(record.channel);
      if (known === undefined) this.#records.set(record.channel, [record]);
      else known.push(record);
    }
  }

  /** Undefined where it has gone meanwhile, or its logger has just made it and not written its header yet. */
  async #openSegment(number: number): Promise<Segment | undefined> {
    const file = await open(join(this.#folder, segmentName(number)), "r").catch(
      (error: NodeJS.ErrnoException) => {
        if (error.code === "ENOENT") return undefined;
        throw error;
      },
    );
    if (file === undefined) return undefined;
    let segment: Segment | undefined;
    try {
      segment = await readHeader(file, number);
      if (segment !== undefined) this.#segments.set(number, segment);
      return segment;
    } finally {
      if (segment === undefined) await file.close();
    }
  }

  #removeSegment(number: number): void {
    const channels = new Set(this.#segments.get(number)?.records.map(({ channel }) => channel));
    this.#segments.delete(number);
    for (const channel of channels) {
      const rest = this.#records.get(channel)?.filter(({ segment }) => segment !== number) ?? [];
      if (rest.length === 0) this.#records.delete(channel);
      else this.#records.set(channel, rest);
    }
  }

  async #readForgotten(): Promise<void> {
    const byChannel = new Map<string, Forgotten[]>();
    for (const entry of await readForgotten(this.#folder)) {
      const known = byChannel.get(entry.channel);
      if (known === undefined) byChannel.set(entry.channel, [entry]);
      else known.push(entry);
    }
    this.#forgotten = byChannel;
  }
}

/** Undefined where it has none yet. */
async function readHeader(file: FileHandle, number: number): Promise<Segment | undefined> {
  const { size } = await file.stat();
  if (size < SEGMENT_HEADER_BYTES) return undefined;
  const key = await readSegmentKey(file, number);
  return {
    file,
    key,
    scanned: SEGMENT_HEADER_BYTES,
    sizeBytes: size,
    records: [],
    lostBytes: 0,
    damagedBytes: key === undefined ? size : 0,
  };
}

const segmentName = (number: number): string => `${String(number).padStart(6, "0")}.payload`;

function checkRange(begin: number, end: number): void {
  if (!Number.isSafeInteger(begin) || !Number.isSafeInteger(end) || begin < 0 || end < begin)
    throw new TypeError(`no range of a channel: [${begin}, ${end})`);
}
