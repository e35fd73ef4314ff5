import type { Evidence } from "../../model/evidence-layout.ts";

const NO_REPLAY = -1;

/**
 * The verifier's own reading of "restore point" (docs/semantics.md, 3). Per segment: is its checkpoint restorable, up to which position can it
 * be replayed, and what the previous cut left open. Shares nothing with restore-points.ts.
 */
export class Histories {
  readonly #evidence: Evidence;
  readonly #restorable: Uint8Array;
  /** Last position of the segment that replay reaches, NO_REPLAY = none. */
  readonly #replayTo: Float64Array;
  readonly #uncertainEnd: Uint8Array;
  readonly #lastStable: Uint32Array;
  /** For a checkpoint with a cut: the earliest line of what only the cut knows. */
  readonly #cutFrom: Uint32Array;

  constructor(evidence: Evidence) {
    const segments = evidence.segments.line.length;
    const processes = evidence.processes.length;
    this.#evidence = evidence;
    this.#restorable = new Uint8Array(segments);
    this.#replayTo = new Float64Array(segments).fill(NO_REPLAY);
    this.#uncertainEnd = new Uint8Array(processes);
    this.#lastStable = new Uint32Array(processes);
    this.#cutFrom = new Uint32Array(segments);
    for (let process = 0; process < processes; process += 1) this.#read(process);
  }

  #read(process: number): void {
    const { start, line, flags, stable, gap } = this.#evidence.segments;
    const from = start[process] as number;
    const to = start[process + 1] as number;
    for (let s = from; s < to; s += 1)
      this.#lastStable[process] = Math.max(this.#lastStable[process] as number, stable[s] as number);
    const stableUpTo = this.#lastStable[process] as number;
    let certain = true;
    let replaying = true;
    let cutLine = 0;
    let gapSinceCut = 0;
    for (let s = from; s < to; s += 1) {
      const checkpoint = line[s] as number;
      const usable = ((flags[s] as number) & 1) !== 0;
      const hasCut = ((flags[s] as number) & 2) !== 0;
      if (hasCut) {
        this.#cutFrom[s] = gapSinceCut > 0 ? gapSinceCut : cutLine + 1;
        cutLine = checkpoint;
        gapSinceCut = 0;
        certain = true;
      }
      if (usable && certain) {
        this.#restorable[s] = 1;
        replaying = true;
      }
      const lastOfSegment =
        s + 1 < to ? (line[s + 1] as number) - 1 : (this.#evidence.length[process] as number);
      const firstGap = gap[s] as number;
      if (replaying) {
        const reach = Math.min(stableUpTo, firstGap > 0 ? firstGap - 1 : lastOfSegment);
        if (reach >= checkpoint) this.#replayTo[s] = reach;
      }
      if (firstGap > 0) {
        certain = false;
        replaying = false;
        if (gapSinceCut === 0) gapSinceCut = firstGap;
      }
    }
    this.#uncertainEnd[process] = certain ? 0 : 1;
  }

  endIsCertain(process: number): boolean {
    return this.#uncertainEnd[process] === 0;
  }

  lastStable(process: number): number {
    return this.#lastStable[process] as number;
  }

  /** The earliest line at which bytes may have come that only the cut of segment `s` knows. */
  cutFrom(s: number): number {
    return this.#cutFrom[s] as number;
  }

  /** The greatest restore point at or before `position`, the volatile end not among them. */
  pointAtOrBefore(process: number, position: number): number {
    const first = this.#evidence.segments.line;
    for (let s = this.#segmentAt(process, position); ; s -= 1) {
      const reach = this.#replayTo[s] as number;
      if (reach !== NO_REPLAY) return Math.min(reach, position);
      if (this.#restorable[s] === 1) return first[s] as number;
    }
  }

  /** The checkpoint that a restore point starts from: its position and index (0 = initial state). */
  baseOf(process: number, position: number): { line: number; index: number } {
    let s = this.#segmentAt(process, position);
    while (this.#restorable[s] !== 1) s -= 1;
    const { line, index } = this.#evidence.segments;
    return { line: line[s] as number, index: index[s] as number };
  }

  /** The newest segment that starts at or before `position`. */
  #segmentAt(process: number, position: number): number {
    const { start, line } = this.#evidence.segments;
    let low = start[process] as number;
    let high = (start[process + 1] as number) - 1;
    while (low < high) {
      const middle = Math.ceil((low + high) / 2);
      if ((line[middle] as number) > position) high = middle - 1;
      else low = middle;
    }
    return low;
  }
}
