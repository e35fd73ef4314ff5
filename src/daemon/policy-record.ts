/**
 * What is plugged, as it stands in the application's log (state "policy", collect/app-log.ts): one value, written in one commit. That commit is
 * the switch from one policy to the next; whoever finds the record goes on with what it names, and with nothing else.
 */
import { RecoveryLineError } from "../model/errors.ts";
import type { PolicyEnd, SourceLine } from "../model/plugged-policy.ts";
import type { PlugTerms } from "../model/policy-terms.ts";
import { type Component, encodeComponent, hashOf } from "../policy/component.ts";
import { decodeComponent } from "../policy/decode-component.ts";

export interface PluggedRecord extends PlugTerms {
  /** The component's bytes. */
  readonly component: string;
  readonly hash: string;
  readonly lines: readonly SourceLine[];
  /** ISO 8601. */
  readonly since: string;
}

export interface PolicyRecord {
  readonly format: 1;
  /** Rises with each change of what decides. */
  readonly epoch: number;
  /** Absent: nothing is plugged. */
  readonly plugged?: PluggedRecord;
  /** The fallback has taken over. */
  readonly over?: PolicyEnd;
}

/** What a policy and its host remember beyond the collector's life; as old as the log's last commit. */
export interface PolicyMemory {
  readonly epoch: number;
  /** By process; "" is the node. */
  readonly states: readonly (readonly [string, readonly number[]])[];
  readonly clocks: readonly StoredClock[];
  /** Processes that were running. */
  readonly live: readonly string[];
}

export interface StoredClock {
  readonly process: string;
  /** When it began, and when its newest checkpoints were taken, by index; ms of the wall clock. */
  readonly startMs: number;
  readonly checkpoints: readonly (readonly [number, number])[];
}

export function recordOf(
  component: Component,
  lines: readonly SourceLine[],
  terms: PlugTerms,
): PluggedRecord {
  return {
    ...terms,
    component: new TextDecoder().decode(encodeComponent(component)),
    hash: hashOf(component),
    lines,
    since: new Date().toISOString(),
  };
}

/** Throws RL_BAD_INPUT where the component is not what its hash says. */
export function componentOf({ component, hash }: Pick<PluggedRecord, "component" | "hash">): Component {
  return decodeComponent(new TextEncoder().encode(component), hash);
}

/** A record from a log; undefined where no policy was ever plugged. Throws RL_NOT_SUPPORTED for one of a newer version. */
export function decodeRecord(value: unknown): PolicyRecord | undefined {
  if (value === undefined || value === null) return undefined;
  const { format } = value as { format?: unknown };
  if (format === 1) return value as PolicyRecord; // under the log's checksum, and we wrote it
  throw new RecoveryLineError(
    "RL_NOT_SUPPORTED",
    `not supported here: the log names a policy in format ${String(format)}, and this version knows 1`,
    "Use the version that plugged it, or plug anew.",
  );
}
