import { Float64List, Uint32List } from "./growable.ts";

/** No process is known at this channel end. */
export const NOBODY = 0xffffffff;
/** Several processes named it at offset 0 and none moved a byte: nobody can say whose it is. */
export const AMBIGUOUS = 0xfffffffe;

/** Everything the builder has seen, in order of arrival; `assembleEvidence` sorts it and drops what was undone. */
export class RawEvidence {
  readonly processes: string[] = [];
  /** A `stable` line came, whether or not a rollback undid it. */
  sawStable = false;
  readonly channels: string[] = [];
  /** Per process: lines of the effective history so far, and its newest segment. */
  readonly length = new Uint32List();
  readonly top = new Uint32List();
  /** Per channel end: the process, and 1 where only a cut at offset 0 says so. */
  readonly processAt = new Uint32List();
  readonly weak = new Uint32List();
  /** Per channel: the process for which it is outside, or NOBODY. */
  readonly outsideOf = new Uint32List();

  /** Processes that were recorded from a later moment on: what others said of their connections to the outside was said before. */
  readonly attached = new Set<number>();

  /** Per range row: its tag (evidence-layout.ts), line, range. */
  readonly rowTag = new Uint32List();
  readonly rowLine = new Uint32List();
  readonly rowBegin = new Float64List();
  readonly rowEnd = new Float64List();

  /** Per segment; `below` is the segment it stands on (itself for an initial state). */
  readonly segmentLine = new Uint32List();
  readonly segmentIndex = new Float64List();
  readonly segmentFlags = new Uint32List();
  readonly segmentStable = new Uint32List();
  readonly segmentGap = new Uint32List();
  readonly segmentGapCount = new Uint32List();
  readonly segmentLost = new Float64List();
  /** What its first gap alone lost, and its last stable line before that gap: what a rollback into the gap keeps. */
  readonly segmentFirstLost = new Float64List();
  readonly segmentFirstStable = new Uint32List();
  readonly segmentBelow = new Uint32List();

  readonly cutSegment = new Uint32List();
  readonly cutEnd = new Uint32List();
  readonly cutOffset = new Float64List();
  /** The same of what cuts have seen beyond what was received, by channel. */
  readonly seenSegment = new Uint32List();
  readonly seenChannel = new Uint32List();
  readonly seenOffset = new Float64List();

  /** Per rollback: rows before it, the process, the last line it kept. */
  readonly rollbackRow = new Uint32List();
  readonly rollbackProcess = new Uint32List();
  readonly rollbackKept = new Uint32List();
}

/** Turns the builder's markers into what `Evidence.processAt` promises. */
export function knownProcess(raw: RawEvidence, channelEnd: number): number {
  const process = raw.processAt.at(channelEnd);
  return process >= AMBIGUOUS ? -1 : process;
}
