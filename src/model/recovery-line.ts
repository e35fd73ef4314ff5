/** The answer of `compute`, exactly as interchange.md prints it. */
import type { PageName } from "./event.ts";

export type Outcome = "clean" | "tainted";
export type Action = "continue" | "restore" | "replay" | "initial";

export interface LineEntry {
  readonly process: string;
  /** Index of the base checkpoint (0 = initial state); null with `continue`. */
  readonly checkpoint: number | null;
  /** The state after the first `position` lines of the process (undone ones not counted). */
  readonly position: number;
  readonly action: Action;
}

/** A maximal range sent inside the line and not received inside it. */
export interface InTransitRange {
  readonly channel: string;
  readonly from: string;
  /** Null if no receiver is known. */
  readonly to: string | null;
  readonly begin: number;
  readonly end: number;
}

/** One link of a witness chain: why the next process must undo what it did. */
export interface WitnessLink {
  /**
   * failed: the chain starts here · orphan: received what `from` no longer sent · never-sent: nobody sent it ·
   * unreplayable: sent, would be in transit, payload not in any log · gap: events missing, no certain point after it
   */
  readonly rule: "failed" | "orphan" | "never-sent" | "unreplayable" | "gap";
  readonly process: string;
  readonly from?: string;
  readonly channel?: string;
  readonly begin?: number;
  readonly end?: number;
  /** Position (1-based line number in the effective history) of the event that is undone, where one event is known. */
  readonly position?: number;
  /** It has only looked at the range (`peek`), or did so before it received it. */
  readonly looked?: true;
  /** With `--dsm exact`: `from` wrote this version of the page, which came with the range (from whoever served it). */
  readonly page?: PageName;
  readonly version?: number;
}

export interface Witness {
  readonly process: string;
  readonly because: readonly WitnessLink[];
}

export interface EvidenceCounts {
  /** Gaps that no later checkpoint with a cut of their process has healed. */
  readonly gaps: number;
  /** Events known to be missing, in healed gaps, too. */
  readonly lost: number;
  readonly healed: number;
}

/** A maximal range of a channel to or from the outside world that `process` undoes. */
export interface OutsideRange {
  readonly channel: string;
  readonly process: string;
  readonly begin: number;
  readonly end: number;
  /** Who is at the other end, where this host knows it: for people. */
  readonly peer?: string;
  /**
   * Of an output that can't be unsaid: processes that keep what that peer has told them, on whatever connection; it may come of this
   * output. Absent: none.
   */
  readonly passedOnTo?: readonly string[];
}

export interface RecoveryLine {
  readonly outcome: Outcome;
  readonly line: readonly LineEntry[];
  readonly inTransit: readonly InTransitRange[];
  readonly witnesses: readonly Witness[];
  /** Received from outside after the process's position: nobody sends it again by itself. */
  readonly lostInputs: readonly OutsideRange[];
  /** Sent to the outside after the process's position: it knows that already. */
  readonly unsayable: readonly OutsideRange[];
  readonly evidence: EvidenceCounts;
}

/** How DSM page traffic counts (theory.md, DSM). */
export type DsmModel = "sequential" | "transfers";
/** Which messages may be left in transit (interchange.md, compute). */
export type InTransitPolicy = "any" | "logged";
