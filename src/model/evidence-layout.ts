/**
 * What the engine computes from: every process's effective history (what a `rollback` line undid is gone), as typed arrays.
 *
 * Units. A *line* is a position in an effective history, 1-based; *position n* is the state after line n; 0 in an array of lines
 * means "none". Processes and channels are numbered in plain `<` order of their names, so no answer depends on arrival order.
 * A *channel end* is `2 * channel + SENDER` or `2 * channel + RECEIVER`.
 *
 * Invariants (written by `EvidenceBuilder.build`): all `start` arrays are CSR offsets; the rows and cuts of one end stand in rising
 * line order; ranges are not empty; the segments of one process stand in rising line order, the first is the initial state.
 */
export const SENDER = 0;
export const RECEIVER = 1;

/** What a row in order of arrival is: these four are `2 * side + invalidate`. */
export const SENT = 0;
export const RECEIVED = 2;
export const LOOKED = 4;
/** No range: the channel is outside. */
export const OUTSIDE = 5;

/** A channel and what the row is of it, in one number. */
export function rowTag(channel: number, what: number): number {
  return channel * 8 + what;
}

export function channelOfTag(tag: number): number {
  return tag >>> 3;
}

export function whatOfTag(tag: number): number {
  return tag & 7;
}

/** The channel end that the row stands at: who looks stands where it receives. */
export function endOfTag(tag: number): number {
  const what = whatOfTag(tag);
  return channelOfTag(tag) * 2 + (what === LOOKED ? RECEIVER : what >>> 1);
}

/** Segment flags. */
export const USABLE = 1;
export const HAS_CUT = 2;
/** Of an initial state: the process was recorded from a later moment on (gap reason `attached`), so nobody can bring it back. */
export const NO_INITIAL = 4;
/** Of a checkpoint: the log names an image of it. */
export const HAS_IMAGE = 8;

/** Non-empty ranges: one row each. */
export interface RowRanges {
  readonly start: Uint32Array;
  readonly line: Uint32Array;
  readonly begin: Float64Array;
  readonly end: Float64Array;
}

/** What was sent or received, by channel end. */
export interface RangeRows extends RowRanges {
  /** 1: the row is a page-invalidate. */
  readonly invalidate: Uint8Array;
}

/** A checkpoint (or the initial state: line 0, index 0, usable) and what stands between it and the next one. */
export interface Segments {
  readonly start: Uint32Array;
  readonly line: Uint32Array;
  readonly index: Float64Array;
  readonly flags: Uint8Array;
  /** Line of the last `stable` in the segment, 0 = none. */
  readonly stable: Uint32Array;
  /** Line of the first `gap` in the segment, 0 = none. */
  readonly gap: Uint32Array;
  readonly gapCount: Uint32Array;
  /** Events known to be missing, summed. */
  readonly lost: Float64Array;
}

/** Cut vectors by channel end (`seen`: by channel): `segment` (global index) is the checkpoint that carries it. */
export interface CutRows {
  readonly start: Uint32Array;
  readonly segment: Uint32Array;
  readonly offset: Float64Array;
}

export interface Evidence {
  readonly processes: readonly string[];
  /** Lines of each effective history. */
  readonly length: Uint32Array;
  readonly channels: readonly string[];
  /** Process at each channel end, -1 = unknown. */
  readonly processAt: Int32Array;
  readonly rows: RangeRows;
  readonly segments: Segments;
  readonly cuts: CutRows;
  /** What the receiver has looked at, by channel; and what its cuts say that it has seen beyond what it received. */
  readonly peeks: RowRanges;
  readonly seen: CutRows;
  /** By channel: the process for which its other end is outside, -1 = it is inside. Nobody else stands at its ends. */
  readonly outside: Int32Array;
  /** Some process wrote a `stable` line, in effect or undone: it keeps a message log, and more of its past may become restorable. */
  readonly sawStable: boolean;
  /** `gap` lines in effective histories: without and with a later cut of their process; the sum of the `lost` of all. */
  readonly gaps: number;
  readonly healed: number;
  readonly lost: number;
}
