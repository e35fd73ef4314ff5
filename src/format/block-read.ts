/** The columns of a block whose size, checksum and header hold: every cell is checked here, once. */
import { MAX_BLOCK_BYTES, MAX_CHANNEL_NAME_BYTES, MAX_OFFSET } from "../model/limits.ts";
import { unpackExtras } from "./block-extras.ts";
import { badBlock, type ParsedBlock, readName } from "./block-header.ts";
import { AT, LEADING_NAMES, signedView, unsignedView, VERSION_WITH_OUTSIDE } from "./block-layout.ts";
import {
  EVENT_KIND,
  EventColumns,
  isControlKind,
  isRangeKind,
  namesChannel,
  predictedBy,
} from "./event-columns.ts";

function require(condition: boolean, why: string): asserts condition {
  if (!condition) throw badBlock(why);
}

/** Throws only RL_BAD_BLOCK. */
export function readColumns(parsed: ParsedBlock): EventColumns {
  const { rows } = parsed.shape;
  require(parsed.bytes.length <= MAX_BLOCK_BYTES || rows === 1, "too large for more than one event");
  const kind = readKinds(parsed);
  const channels = readChannelNames(parsed);
  const channel = readChannels(parsed, kind, channels.length);
  const { begin, end } = readRanges(parsed, kind, channel);
  const columns = EventColumns.from(parsed.header.process, {
    count: rows,
    kind,
    channel,
    begin,
    end,
    time: readTimes(parsed),
    thread: readThreads(parsed),
    channels,
    extras: new Map(),
  });
  const { extras, trailer } = parsed.sections;
  require(parsed.hasExtras === extras < trailer, "the extras flag is wrong");
  unpackExtras(parsed.bytes.subarray(extras, trailer), columns, parsed.bytes[AT.version]!);
  checkControls(parsed, columns);
  return columns;
}

function readKinds({ bytes, sections, shape, header }: ParsedBlock): Uint8Array {
  const kind = bytes.slice(sections.kind, sections.kind + shape.rows);
  const greatest = bytes[AT.version]! >= VERSION_WITH_OUTSIDE ? EVENT_KIND.outside : EVENT_KIND.rollback;
  let [sends, receives, controls] = [0, 0, 0];
  for (const code of kind) {
    if (code === EVENT_KIND.send) sends += 1;
    else if (code === EVENT_KIND.receive) receives += 1;
    else if (isControlKind(code)) controls += 1;
    require(code >= EVENT_KIND.send && code <= greatest, `unknown kind ${code}`);
  }
  require(sends === header.sends && receives === header.receives, "sends or receives miscounted");
  require(controls === header.controls, "control events miscounted");
  return kind;
}

/** The channels that the block's rows name, by index. Throws only RL_BAD_BLOCK. */
export function readChannelNames({ bytes, sections, shape }: ParsedBlock): string[] {
  const lengths = unsignedView(bytes, sections.nameLengths, LEADING_NAMES + shape.channels, 2);
  let at = sections.names + lengths[0]! + lengths[1]!;
  const names: string[] = [];
  for (let n = LEADING_NAMES; n < lengths.length; n += 1) {
    require(at + lengths[n]! <= sections.extras, "names leave their section");
    names.push(readName(bytes, at, lengths[n]!, MAX_CHANNEL_NAME_BYTES));
    at += lengths[n]!;
  }
  require(at === sections.names + shape.nameBytes, "names do not fill their section");
  require(new Set(names).size === names.length, "a channel is named twice");
  return names;
}

function readChannels({ bytes, sections, shape }: ParsedBlock, kind: Uint8Array, channels: number) {
  const channel = new Uint32Array(unsignedView(bytes, sections.channel, shape.rows, shape.channelWidth));
  for (let row = 0; row < channel.length; row += 1) {
    const least = namesChannel(kind[row]!) ? channels : 1;
    require(channel[row]! < least, "a channel that is not named");
  }
  return channel;
}

function readRanges({ bytes, sections, shape }: ParsedBlock, kind: Uint8Array, channel: Uint32Array) {
  const { rows, beginExceptions } = shape;
  const length = unsignedView(bytes, sections.length, rows, shape.lengthWidth);
  const exceptionRows = unsignedView(bytes, sections.beginExceptionRows, beginExceptions, 4);
  const exceptionValues = unsignedView(
    bytes,
    sections.beginExceptionValues,
    beginExceptions,
    shape.beginWidth,
  );
  const next = new Float64Array(shape.channels * 2);
  const begin = new Float64Array(rows);
  const end = new Float64Array(rows);
  let exception = 0;
  for (let row = 0; row < rows; row += 1) {
    if (!isRangeKind(kind[row]!)) {
      require(length[row] === 0, "a length without a range");
      continue;
    }
    const slot = channel[row]! * 2 + predictedBy(kind[row]!);
    let first = next[slot]!;
    if (exception < beginExceptions && exceptionRows[exception] === row) {
      first = exceptionValues[exception]!;
      exception += 1;
    }
    const last = first + length[row]!;
    // Integers only: with wide cells both come from f64.
    require(Number.isSafeInteger(first) && first >= 0 && Number.isSafeInteger(length[row]!), "an offset");
    require(length[row]! >= 0 && last <= MAX_OFFSET, "an offset is out of range");
    begin[row] = first;
    end[row] = last;
    if (kind[row] !== EVENT_KIND.peek) next[slot] = last;
  }
  // An exception that is not met stands at a wrong row, or behind one that does.
  require(exception === beginExceptions, "a begin exception at no row with a range");
  return { begin, end };
}

function readTimes({ bytes, sections, shape }: ParsedBlock): Float64Array {
  const { rows, timeWidth, timeExceptions } = shape;
  const steps = timeWidth === 0 ? undefined : signedView(bytes, sections.time, rows, timeWidth);
  const exceptionRows = unsignedView(bytes, sections.timeExceptionRows, timeExceptions, 4);
  const exceptionValues = unsignedView(bytes, sections.timeExceptionValues, timeExceptions, 8);
  const time = new Float64Array(rows);
  let before = new DataView(bytes.buffer, bytes.byteOffset).getFloat64(AT.timeBase, true);
  require(Number.isFinite(before), "the base of times");
  let exception = 0;
  for (let row = 0; row < rows; row += 1) {
    let now = steps === undefined ? Number.NaN : before + steps[row]!;
    if (exception < timeExceptions && exceptionRows[exception] === row) {
      now = exceptionValues[exception]!;
      exception += 1;
    } else require(steps === undefined || Number.isFinite(now), "a time");
    require(now !== Number.POSITIVE_INFINITY && now !== Number.NEGATIVE_INFINITY, "an endless time");
    time[row] = now;
    if (!Number.isNaN(now)) before = now;
  }
  require(exception === timeExceptions, "a time exception at no row");
  return time;
}

function readThreads({ bytes, sections, shape }: ParsedBlock): Uint32Array {
  const { rows, threads, threadWidth } = shape;
  const values = unsignedView(bytes, sections.threadValues, threads, 4);
  const thread = new Uint32Array(rows);
  if (threadWidth === 0) {
    require(threads <= 1, "threads without a column");
    return thread.fill(values[0] ?? 0);
  }
  const index = unsignedView(bytes, sections.thread, rows, threadWidth);
  for (let row = 0; row < rows; row += 1) {
    require(index[row]! < threads, "a thread that is not listed");
    thread[row] = values[index[row]!]!;
  }
  return thread;
}

/** Kinds that need an extra have one, and the header's flags and greatest checkpoint say what the rows say. */
function checkControls({ header }: ParsedBlock, columns: EventColumns): void {
  let hasCut = false;
  let irregular = false;
  let rollback = -1;
  for (let row = 0; row < columns.count; row += 1) {
    const kind = columns.kind[row]!;
    if (kind <= EVENT_KIND.receive || kind > EVENT_KIND.rollback) continue;
    irregular ||= kind !== EVENT_KIND["page-fault"] && kind !== EVENT_KIND.checkpoint;
    if (kind === EVENT_KIND.stable || kind === EVENT_KIND.gap) continue;
    const event = columns.extras.get(row);
    require(event !== undefined, "an event without its extra");
    if (event.type === "checkpoint") {
      require(event.checkpoint <= header.greatestCheckpoint, "a checkpoint beyond the greatest");
      hasCut ||= event.cut !== undefined;
      irregular ||= event.cut === undefined;
    } else if (event.type === "rollback") {
      require(rollback < 0, "two rollbacks");
      rollback = row;
    }
  }
  require(hasCut === header.hasCut, "the cut flag is wrong");
  require(irregular === header.irregular, "the irregular flag is wrong");
  require(header.endsInRollback === rollback >= 0, "the rollback flag is wrong");
  require(rollback < 0 || rollback === columns.count - 1, "a rollback before the last row");
}
