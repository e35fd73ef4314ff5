/** What the live demo promises of its answers, and whether they keep it. */
import { RecoveryLineError } from "../model/errors.ts";
import { counted } from "../model/printable.ts";
import type { RecoveryLine } from "../model/recovery-line.ts";
import { bytesOf } from "../terminal/outside-report.ts";

export type DemoAnswer = Pick<RecoveryLine, "outcome" | "line" | "evidence" | "lostInputs" | "unsayable">;

/** Who is killed, and with whom the client talks that nobody records. */
export interface DemoRoles {
  readonly victim: string;
  readonly server: string;
}

interface Counts {
  /** Checkpoints that were taken at one moment, before the others. */
  readonly together: number;
  readonly alone: number;
  readonly refused: number;
}

/** One line that says what was seen. Throws RL_DRIVER where a line is tainted, or a process stands at its start. */
export function checkedVerdict(
  { victim, server }: DemoRoles,
  one: DemoAnswer,
  all: DemoAnswer,
  counts: Counts,
): string {
  const wrong = [
    ...troubles(`the line without ${victim}`, one, counts.together),
    ...troubles("the line of all", all, counts.together),
    ...(back(one).some(({ process }) => process === victim) ? [] : [`${victim} was killed and is to go on`]),
    ...(back(all).length === counts.together ? [] : ["all failed, and somebody is to go on"]),
    ...strangers([one, all], server).map(
      (process) => `${process} has inputs or outputs, and only ${server} has a client outside`,
    ),
  ];
  if (wrong.length > 0)
    throw new RecoveryLineError(
      "RL_DRIVER",
      `the demo did not end as it should: ${wrong.join("; ")}`,
      "Please keep its log and report it.",
    );
  const refused = counts.refused === 0 ? "" : ` (${counts.refused} more were refused at their moment)`;
  return (
    `Seen: ${counts.together} checkpoints together and ${counts.alone} alone${refused}; ${victim} killed: ` +
    `${counted(back(one).length, "process goes", "processes go")} back, ${counted(one.line.length - back(one).length, "goes", "go")} on; ` +
    `nobody to its start, no event missing, lines clean and verified; ` +
    `if all went back, ${bytesOf(all.lostInputs)} bytes from the client outside would be lost inputs, ${bytesOf(all.unsayable)} to it unsayable.`
  );
}

function strangers(answers: readonly DemoAnswer[], server: string): string[] {
  const ranges = answers.flatMap(({ lostInputs, unsayable }) => [...lostInputs, ...unsayable]);
  return [...new Set(ranges.map(({ process }) => process))].filter((process) => process !== server);
}

function back({ line }: DemoAnswer): DemoAnswer["line"] {
  return line.filter(({ action }) => action !== "continue");
}

function troubles(what: string, answer: DemoAnswer, processes: number): string[] {
  const atStart = answer.line.filter(({ action, position }) => action === "initial" || position === 0);
  return [
    ...(answer.line.length === processes ? [] : [`${what} has ${answer.line.length} processes`]),
    ...(answer.outcome === "clean" ? [] : [`${what} is ${answer.outcome}`]),
    ...(answer.evidence.gaps === 0 ? [] : [`${what} has ${counted(answer.evidence.gaps, "gap")}`]),
    ...atStart.map(({ process }) => `${what} throws ${process} back to its start`),
  ];
}
