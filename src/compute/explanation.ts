/** Why one process goes on from where a line says, in sentences. */
import { RecoveryLineError } from "../model/errors.ts";
import type { Evidence } from "../model/evidence-layout.ts";
import { counted, printable } from "../model/printable.ts";
import type { LineEntry, OutsideRange, RecoveryLine, WitnessLink } from "../model/recovery-line.ts";
import { sentenceOf } from "../model/witness-text.ts";

export interface Explanation extends LineEntry {
  /** Lines of its history that are undone, count. */
  readonly undone: number;
  /** What it undoes of the outside world. */
  readonly lostInputs: readonly OutsideRange[];
  readonly unsayable: readonly OutsideRange[];
  /** What holds of the process, in sentences. */
  readonly summary: readonly string[];
  /** A shortest chain of messages from a failure to this process; empty for one that continues. */
  readonly because: readonly WitnessLink[];
  /** The chain in sentences. */
  readonly sentences: readonly string[];
}

/** Throws RL_UNKNOWN_PROCESS for a process that the evidence does not name. */
export function explanation(evidence: Evidence, answer: RecoveryLine, name: string): Explanation {
  const number = evidence.processes.indexOf(name);
  const entry = answer.line[number];
  if (entry === undefined)
    throw new RecoveryLineError(
      "RL_UNKNOWN_PROCESS",
      `no process ${JSON.stringify(name)} in the evidence`,
      "Name the process as it stands in the evidence; compute lists them all.",
    );
  const length = evidence.length[number] as number;
  const because = answer.witnesses.find(({ process }) => process === name)?.because ?? [];
  return {
    ...entry,
    undone: length - entry.position,
    lostInputs: answer.lostInputs.filter(({ process }) => process === name),
    unsayable: answer.unsayable.filter(({ process }) => process === name),
    summary: summaryOf(entry, length, because.length),
    because,
    sentences: because.map(sentenceOf),
  };
}

export function summaryOf(entry: LineEntry, length: number, links: number): string[] {
  const who = printable(entry.process);
  if (entry.action === "continue")
    return [
      `${who} is not rolled back: it goes on from its end, position ${length}.`,
      "It did not fail, its end is certain, and everything it received was sent by what the others keep.",
    ];
  const from = {
    restore: `from checkpoint ${entry.checkpoint} (position ${entry.position})`,
    replay: `from checkpoint ${entry.checkpoint} and replays its message log up to position ${entry.position}`,
    initial: "from its initial state",
  }[entry.action];
  const cost = `it undoes ${counted(length - entry.position, "event")} of ${length}`;
  const steps =
    links === 1 ? "That has one reason:" : `A shortest chain that forces it has ${counted(links, "step")}:`;
  return [`${who} restarts ${from}: ${cost}.`, steps];
}
