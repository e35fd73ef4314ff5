/** First pass over the rows of a block to be written: what its sections must hold, and so how large it gets. */
import { assert } from "../model/assert.ts";
import { MAX_BLOCK_BYTES, MAX_BLOCK_EVENTS } from "../model/limits.ts";
import { packExtras } from "./block-extras.ts";
import { layOut, type Sections, type Shape, unsignedWidth, VERSION_WITH_OUTSIDE } from "./block-layout.ts";
import {
  EVENT_KIND,
  type EventColumns,
  isControlKind,
  isRangeKind,
  namesChannel,
  predictedBy,
} from "./event-columns.ts";

/** Rows [from, to) of `columns`, ready to be written. Arrays are indexed by row - from. */
export interface BlockPlan {
  readonly columns: EventColumns;
  readonly from: number;
  readonly to: number;
  readonly shape: Shape;
  readonly sections: Sections;
  readonly sends: number;
  readonly receives: number;
  readonly controls: number;
  readonly hasCut: boolean;
  /** `BlockHeader.irregular`. */
  readonly irregular: boolean;
  /** The checkpoint that the last row rolls back to, or undefined. */
  readonly rollbackTo: number | undefined;
  /** A row says that a channel is outside. */
  readonly hasOutside: boolean;
  /** Greatest checkpoint index among the rows; 0 = none. */
  readonly greatestCheckpoint: number;
  /** The least version of a block that can hold the rows. */
  readonly version: number;
  readonly localChannel: Uint32Array;
  /** Time minus the time before it; NaN where that is no exact integer, or there is none. */
  readonly delta: Float64Array;
  readonly timeBase: number;
  readonly threadIndex: Uint32Array;
  readonly threads: readonly number[];
  readonly beginExceptionRows: readonly number[];
  /** application and process are missing here: the place names them. */
  readonly channelNames: readonly string[];
  readonly extras: Uint8Array;
}

/** A name's length in UTF-8. */
export function nameLength(name: string): number {
  return Buffer.byteLength(name);
}

/** `leadingBytes`: the application's and the process's names, in bytes. */
export function measure(columns: EventColumns, from: number, to: number, leadingBytes: number): BlockPlan {
  assert(from >= 0 && from < to && to <= columns.count, "a block has rows");
  assert(to - from <= MAX_BLOCK_EVENTS, "a block has at most MAX_BLOCK_EVENTS rows");
  const channels = measureChannels(columns, from, to);
  const times = measureTimes(columns, from, to);
  const threads = measureThreads(columns, from, to);
  const controls = measureControls(columns, from, to);
  const { extras, version } = packExtras(columns, from, to);
  const shape: Shape = {
    rows: to - from,
    channels: channels.channelNames.length,
    threads: threads.threads.length,
    beginExceptions: channels.beginExceptionRows.length,
    timeExceptions: times.exceptions,
    channelWidth: Math.min(4, unsignedWidth(Math.max(0, channels.channelNames.length - 1))),
    lengthWidth: unsignedWidth(channels.greatestLength),
    timeWidth: times.width,
    threadWidth: threads.threads.length <= 1 ? 0 : unsignedWidth(threads.threads.length - 1),
    beginWidth: channels.greatestBegin > 0xffff_ffff ? 8 : 4,
    nameBytes: leadingBytes + channels.channelBytes,
    extraBytes: extras.length,
  };
  return {
    columns,
    from,
    to,
    shape,
    sections: layOut(shape),
    ...channels,
    ...controls,
    delta: times.delta,
    timeBase: times.base,
    ...threads,
    extras,
    version: channels.newKinds ? Math.max(version, VERSION_WITH_OUTSIDE) : version,
  };
}

function measureChannels(columns: EventColumns, from: number, to: number) {
  const { kind, channel, begin, end } = columns;
  const here = new Int32Array(columns.channels.length).fill(-1);
  const next = new Float64Array(columns.channels.length * 2);
  const localChannel = new Uint32Array(to - from);
  const channelNames: string[] = [];
  let channelBytes = 0;
  const beginExceptionRows: number[] = [];
  let [hasOutside, newKinds] = [false, false];
  let [sends, receives, greatestLength, greatestBegin] = [0, 0, 0, 0];
  for (let row = from; row < to; row += 1) {
    const code = kind[row]!;
    if (!namesChannel(code)) continue;
    hasOutside ||= code === EVENT_KIND.outside;
    newKinds ||= code > EVENT_KIND.rollback;
    const there = channel[row]!;
    let local = here[there]!;
    if (local < 0) {
      const name = columns.channels[there]!;
      local = channelNames.push(name) - 1;
      channelBytes += nameLength(name);
      here[there] = local;
    }
    localChannel[row - from] = local;
    if (!isRangeKind(code)) continue;
    if (code === EVENT_KIND.receive) receives += 1;
    else if (code === EVENT_KIND.send) sends += 1;
    const first = begin[row]!;
    const last = end[row]!;
    const slot = local * 2 + predictedBy(code);
    if (first !== next[slot]) {
      beginExceptionRows.push(row - from);
      if (first > greatestBegin) greatestBegin = first;
    }
    // What was looked at is received next.
    if (code !== EVENT_KIND.peek) next[slot] = last;
    if (last - first > greatestLength) greatestLength = last - first;
  }
  return {
    localChannel,
    channelNames,
    channelBytes,
    beginExceptionRows,
    hasOutside,
    newKinds,
    sends,
    receives,
    greatestLength,
    greatestBegin,
  };
}

/** Bytes of one time exception: value and row. */
const TIME_EXCEPTION_BYTES = 12;

function measureTimes(columns: EventColumns, from: number, to: number) {
  const { time } = columns;
  const delta = new Float64Array(to - from);
  /** Rows that do not fit a cell of 1, 2, 4, 8 bytes. */
  const misfits = [0, 0, 0, 0];
  let timed = 0;
  let base = 0;
  let before = 0;
  for (let row = from; row < to; row += 1) {
    const now = time[row]!;
    let step = Number.NaN;
    if (!Number.isNaN(now)) {
      assert(Number.isFinite(now), "a time is finite or missing");
      if (timed === 0) {
        base = now;
        before = now;
      }
      timed += 1;
      const exact = now - before;
      if (Number.isInteger(exact) && before + exact === now) step = exact;
      before = now;
    }
    delta[row - from] = step;
    if (step >= -128 && step <= 127) continue;
    misfits[0]! += 1;
    if (step >= -32_768 && step <= 32_767) continue;
    misfits[1]! += 1;
    if (step >= -2_147_483_648 && step <= 2_147_483_647) continue;
    misfits[2]! += 1;
    if (Number.isNaN(step)) misfits[3]! += 1;
  }
  return { delta, base, ...cheapestTime(to - from, timed, misfits) };
}

function cheapestTime(rows: number, timed: number, misfits: readonly number[]) {
  let best = { width: 0, exceptions: timed };
  let bytes = timed * TIME_EXCEPTION_BYTES;
  for (const [index, width] of [1, 2, 4, 8].entries()) {
    const exceptions = misfits[index]!;
    const cost = rows * width + exceptions * TIME_EXCEPTION_BYTES;
    if (cost < bytes) [best, bytes] = [{ width, exceptions }, cost];
  }
  return best;
}

function measureThreads(columns: EventColumns, from: number, to: number) {
  const { thread } = columns;
  const threadIndex = new Uint32Array(to - from);
  const known = new Map<number, number>();
  const threads: number[] = [];
  let last = -1;
  let lastIndex = 0;
  for (let row = from; row < to; row += 1) {
    const id = thread[row]!;
    if (id !== last) {
      last = id;
      const index = known.get(id);
      if (index === undefined) known.set(id, threads.length);
      lastIndex = index ?? threads.push(id) - 1;
    }
    threadIndex[row - from] = lastIndex;
  }
  // One thread with number 0 says nothing.
  return { threadIndex, threads: threads.length === 1 && threads[0] === 0 ? [] : threads };
}

function measureControls(columns: EventColumns, from: number, to: number) {
  let [controls, greatestCheckpoint] = [0, 0];
  let hasCut = false;
  let irregular = false;
  let rollbackTo: number | undefined;
  for (let row = from; row < to; row += 1) {
    const kind = columns.kind[row]!;
    if (kind <= EVENT_KIND["page-fault"] || kind > EVENT_KIND.rollback) continue;
    const event = columns.extras.get(row);
    irregular ||= event?.type !== "checkpoint" || event.cut === undefined;
    if (!isControlKind(kind)) continue;
    controls += 1;
    if (event?.type === "checkpoint") {
      greatestCheckpoint = Math.max(greatestCheckpoint, event.checkpoint);
      hasCut ||= event.cut !== undefined;
    } else if (event?.type === "rollback") {
      assert(row === to - 1, "a rollback is the last row of its block");
      rollbackTo = event.checkpoint;
    }
  }
  return { controls, greatestCheckpoint, hasCut, irregular, rollbackTo };
}

/** Rows tried first, count: at 10.6 bytes an event a block is full. */
const FIRST_TRY_ROWS = 24_576;
/** Data rows that a block with control events may carry beside them, count: readers of control events skip the rest. */
const NEAR_CONTROL_ROWS = 1024;

/** The largest block that may begin at row `from`. */
export function planBlock(columns: EventColumns, from: number, leadingBytes: number): BlockPlan {
  let to = blockEnd(columns, from);
  for (;;) {
    const plan = measure(columns, from, to, leadingBytes);
    const { size } = plan.sections;
    if (size <= MAX_BLOCK_BYTES || to - from === 1) return plan;
    to = from + Math.max(1, Math.floor(((to - from) * MAX_BLOCK_BYTES * 0.97) / size));
  }
}

/** Ends after a rollback, and keeps long runs of data out of blocks with control events. */
function blockEnd(columns: EventColumns, from: number): number {
  const { kind } = columns;
  const limit = Math.min(columns.count, from + FIRST_TRY_ROWS);
  let lastControl = -1;
  for (let row = from; row < limit; row += 1) {
    if (!isControlKind(kind[row]!)) {
      if (lastControl >= 0 && row - lastControl > NEAR_CONTROL_ROWS) return lastControl + 1;
      continue;
    }
    if (lastControl < 0 && row - from > NEAR_CONTROL_ROWS) return row;
    lastControl = row;
    if (kind[row] === EVENT_KIND.rollback) return row + 1;
  }
  return limit;
}
