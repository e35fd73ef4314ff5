/**
 * A block's reduced lines straight from its cells. Blocks of sends and receives alone, that is nearly all bytes of a log, never become
 * columns: what no answer needs (times, threads) is not even looked at. Others go the long way.
 */
import { badBlock, type ParsedBlock } from "../../format/block-header.ts";
import { unsignedView } from "../../format/block-layout.ts";
import { readChannelNames, readColumns } from "../../format/block-read.ts";
import { EVENT_KIND } from "../../format/event-columns.ts";
import { RECEIVED, rowTag, SENT } from "../../model/evidence-layout.ts";
import { MAX_BLOCK_EVENTS, MAX_OFFSET } from "../../model/limits.ts";
import { type ReducedLines, RowArrays, reduceColumns } from "./reduced-lines.ts";

/** The same as `reduceColumns(readColumns(parsed), join)`. Throws only RL_BAD_BLOCK. */
export function reduceBlock(parsed: ParsedBlock, join: boolean): ReducedLines {
  const { header } = parsed;
  const onlyRanges = header.sends + header.receives === header.rows && !parsed.hasExtras;
  return onlyRanges ? reduceRanges(parsed, join) : reduceColumns(readColumns(parsed), join);
}

interface Scratch {
  readonly channel: Uint32Array;
  readonly length: Float64Array;
}
let shared: Scratch | undefined;

/** Cells of one block, widened: the same memory for every block, or most of the time would go into getting it. */
function scratch(): Scratch {
  shared ??= { channel: new Uint32Array(MAX_BLOCK_EVENTS), length: new Float64Array(MAX_BLOCK_EVENTS) };
  return shared;
}

function reduceRanges(parsed: ParsedBlock, join: boolean): ReducedLines {
  const { bytes, sections, shape, header } = parsed;
  const { rows } = shape;
  const channels = readChannelNames(parsed);
  const kind = bytes.subarray(sections.kind, sections.kind + rows);
  const { channel, length } = scratch();
  channel.set(unsignedView(bytes, sections.channel, rows, shape.channelWidth));
  length.set(unsignedView(bytes, sections.length, rows, shape.lengthWidth));
  const begins = beginExceptions(parsed);
  const out = new RowArrays(join ? Math.min(rows, 1024) : rows);
  /** Per channel and end: where its last range ended, and that range's row. */
  const next = new Float64Array(channels.length * 2);
  const open = new Int32Array(channels.length * 2).fill(-1);
  let receives = 0;
  let exception = 0;
  let exceptionRow = begins.rows[0] ?? rows;
  for (let row = 0; row < rows; row += 1) {
    const side = (kind[row] as number) - EVENT_KIND.send;
    const slot = (channel[row] as number) * 2 + side;
    if (side >>> 0 > 1 || slot >= next.length) throw badBlock("a cell of a range is out of range");
    receives += side;
    let first = next[slot] as number;
    if (row === exceptionRow) {
      first = begins.values[exception] as number;
      exception += 1;
      exceptionRow = begins.rows[exception] ?? rows;
    }
    const last = first + (length[row] as number);
    if (!(last <= MAX_OFFSET)) throw badBlock("an offset is out of range");
    next[slot] = last;
    if (first >= last) continue;
    const at = open[slot] as number;
    if (join && at >= 0 && out.end[at] === first) out.end[at] = last;
    else
      open[slot] = out.push(
        rowTag(channel[row] as number, side === 0 ? SENT : RECEIVED),
        row + 1,
        first,
        last,
      );
  }
  if (receives !== header.receives || exception !== begins.rows.length)
    throw badBlock("the cells are not what the header says");
  return { process: header.process, lines: rows, channels, ...out.sealed(), controls: [] };
}

/** Rows whose range does not begin where the one before on its channel ended. Cells of 8 bytes are checked to be offsets. */
function beginExceptions({ bytes, sections, shape }: ParsedBlock): {
  rows: Uint32Array;
  values: Float64Array;
} {
  const count = shape.beginExceptions;
  const rows = new Uint32Array(unsignedView(bytes, sections.beginExceptionRows, count, 4));
  const values = new Float64Array(
    unsignedView(bytes, sections.beginExceptionValues, count, shape.beginWidth),
  );
  const length = unsignedView(bytes, sections.length, shape.rows, shape.lengthWidth);
  if (shape.beginWidth === 8) checkOffsets(values);
  if (shape.lengthWidth === 8) checkOffsets(length);
  return { rows, values };
}

function checkOffsets(cells: ArrayLike<number>): void {
  for (let cell = 0; cell < cells.length; cell += 1)
    if (!(Number.isSafeInteger(cells[cell]) && (cells[cell] as number) >= 0))
      throw badBlock("a cell is no offset");
}
