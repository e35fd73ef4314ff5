/** A policy that is plugged: what whoever plugs it sends, and what is told of it. */
import type { Allowable, PlugTerms } from "./policy-terms.ts";

export interface SourceLine {
  readonly line: number;
  readonly column: number;
  /** The statement came out of this macro. */
  readonly macro?: string;
}

export type WireNumber = number | "inf" | "-inf";

/** Why a policy decides nothing any more though nobody unplugged it. */
export interface PolicyEnd {
  readonly reason: string;
  readonly why: string;
}

export type PolicyOutcome = "done" | "failed" | "refused" | "dropped" | "shadow";

export interface PolicyLogLine {
  /** ISO 8601. */
  readonly time: string;
  readonly epoch: number;
  readonly policy: string;
  /** The event of the language, or a step of the policy's life: "plugged", "replaced", "unplugged", "fault", "fallback". */
  readonly event: string;
  /** Whose handler it was; absent: the node's. */
  readonly process?: string;
  /** Where the statement stands in the policy's file. */
  readonly line?: number;
  /** What the handler read. */
  readonly facts?: Readonly<Record<string, number | string>>;
  readonly action?: string;
  readonly outcome?: PolicyOutcome;
  readonly detail?: string;
}

export interface PlugAnswer {
  readonly epoch: number;
  readonly policy: string;
  readonly version: number;
  readonly hash: string;
  /** Undefined: nothing was plugged. */
  readonly replaced?: string;
  /** What it would have done while it was in its shadow phase. */
  readonly would: readonly PolicyLogLine[];
  readonly dryRun: boolean;
}

/** What people are told of it. */
export interface PolicyStatus extends Omit<PlugTerms, "set"> {
  readonly app: string;
  readonly epoch: number;
  readonly policy: string;
  readonly version: number;
  readonly title: string;
  readonly hash: string;
  readonly since: string;
  readonly state: "active" | "fallback";
  readonly over?: PolicyEnd;
  readonly shadow?: string;
  /** All of them, as they are now; seconds, bytes. */
  readonly parameters: Readonly<Record<string, number>>;
  readonly faults: number;
  readonly stalls: number;
  readonly restarts: number;
  /** Checkpoints that it had taken since the collector began, and how long they held their processes still, in sum, ms. */
  readonly checkpoints: number;
  readonly frozenMs: number;
  readonly actions: Readonly<Record<string, number>>;
}

export interface PlugBody {
  readonly app: string;
  /** The component's bytes, and what they hash to. */
  readonly component: string;
  readonly hash: string;
  readonly lines: readonly SourceLine[];
  readonly set: readonly (readonly [string, WireNumber])[];
  /** Absent: nobody has said what the policy may do; then one that wants something of it is refused. */
  readonly allow?: readonly Allowable[];
  /** Seconds; null: nothing takes over. */
  readonly fallback: number | null;
  readonly driver: PlugTerms["driver"];
  readonly hooks?: string;
  /** Seconds. */
  readonly mostLoss?: number;
  readonly lineEvery?: number;
  /** Seconds. */
  readonly shadow: number;
  readonly dryRun: boolean;
}
