/**
 * Re-checks a line from the evidence, by the definitions of docs/semantics.md and with no code of the engine: sets of
 * offsets at one cut instead of lines per byte, and one look at each step of the proof instead of a search.
 *
 * Checked: every entry is a restore point with the right action and base · failed processes do not continue · received or seen ⊆ sent on every
 * channel that is not outside · lost inputs and unsayable outputs of the others are exactly what is undone · nothing unreplayable in transit · the in-transit list is exactly what is in transit · every rolled-back process is forced that
 * far by a valid chain, so that no later line exists.
 */
import { RecoveryLineError } from "../../model/errors.ts";
import type { Evidence } from "../../model/evidence-layout.ts";
import type {
  DsmModel,
  InTransitPolicy,
  InTransitRange,
  LineEntry,
  OutsideRange,
  RecoveryLine,
  WitnessLink,
} from "../../model/recovery-line.ts";
import { ByteLookup } from "./verify-bytes.ts";
import { Histories } from "./verify-histories.ts";
import { OffsetSets, subtract } from "./verify-sets.ts";

export interface Question {
  /** Names of the failed processes. */
  readonly failed: readonly string[];
  readonly dsm: DsmModel;
  readonly inTransit: InTransitPolicy;
}

/** Steps of chains from failures; `parents[i] < i` is the step before, -1 at a start. */
export interface ProofSteps {
  readonly steps: readonly WitnessLink[];
  readonly parents: ArrayLike<number>;
}

/** Throws `RL_REJECTED` naming the first thing that does not hold. Without `proof` the printed witnesses must prove the line. */
export function verifyLine(
  evidence: Evidence,
  question: Question,
  answer: RecoveryLine,
  proof: ProofSteps = proofFromWitnesses(answer),
): void {
  const histories = new Histories(evidence);
  const failed = new Set(question.failed);
  checkSummary(evidence, answer);
  checkEntries(evidence, histories, failed, answer.line);
  checkChannels(evidence, histories, question, answer);
  checkMaximal(evidence, histories, failed, question, answer, proof);
}

/** Every printed chain as steps of its own. */
export function proofFromWitnesses(answer: RecoveryLine): ProofSteps {
  const steps: WitnessLink[] = [];
  const parents: number[] = [];
  for (const { because } of answer.witnesses)
    because.forEach((link, place) => {
      steps.push(link);
      parents.push(place === 0 ? -1 : steps.length - 2);
    });
  return { steps, parents };
}

function reject(what: string): never {
  throw new RecoveryLineError(
    "RL_REJECTED",
    `the verifier rejected the line: ${what}`,
    "This is a bug in recovery-line: keep the log and report it.",
  );
}

function checkSummary(evidence: Evidence, answer: RecoveryLine): void {
  const { start, flags, gapCount, lost: lostIn } = evidence.segments;
  let [gaps, healed, lost] = [0, 0, 0];
  for (let process = 0; process + 1 < start.length; process += 1) {
    let open = 0;
    for (let s = start[process] as number; s < (start[process + 1] as number); s += 1) {
      if (((flags[s] as number) & 2) !== 0) {
        healed += open;
        open = 0;
      }
      open += gapCount[s] as number;
      lost += lostIn[s] as number;
    }
    gaps += open;
  }
  const told = answer.evidence;
  if (told.gaps !== gaps || told.healed !== healed || told.lost !== lost)
    reject("gaps or lost events miscounted");
  if ((answer.outcome === "tainted") !== gaps > 0) reject(`outcome "${answer.outcome}" with ${gaps} gaps`);
}

function checkEntries(
  evidence: Evidence,
  histories: Histories,
  failed: ReadonlySet<string>,
  line: readonly LineEntry[],
): void {
  if (line.length !== evidence.processes.length) reject("not one entry a process");
  line.forEach((entry, process) => {
    const name = evidence.processes[process];
    const { position, action, checkpoint } = entry;
    if (entry.process !== name) reject(`entry ${process} is not process "${name}"`);
    if (action === "continue") {
      const length = evidence.length[process];
      if (failed.has(entry.process)) reject(`"${name}" failed and can't continue`);
      if (checkpoint !== null || position !== length) reject(`"${name}" continues, but not at its end`);
      if (!histories.endIsCertain(process)) reject(`"${name}" continues past a gap`);
      return;
    }
    if (histories.pointAtOrBefore(process, position) !== position)
      reject(`position ${position} of "${name}" is no restore point`);
    const base = histories.baseOf(process, position);
    if (base.index === 0 && (evidence.segments.flags[evidence.segments.start[process]!]! & 4) !== 0)
      reject(`"${name}" was attached: it has no initial state to start from`);
    const expected = position === 0 ? "initial" : base.line === position ? "restore" : "replay";
    if (action !== expected || checkpoint !== base.index)
      reject(
        `"${name}" at ${position}: ${action} from ${checkpoint}, expected ${expected} from ${base.index}`,
      );
  });
}

function checkChannels(
  evidence: Evidence,
  histories: Histories,
  question: Question,
  answer: RecoveryLine,
): void {
  const sets = new OffsetSets(evidence, histories, question.dsm);
  let listed = 0;
  checkOutside(evidence, sets, answer);
  evidence.channels.forEach((channel, number) => {
    if (evidence.outside[number] !== -1) return;
    const sender = evidence.processAt[number * 2] as number;
    const receiver = evidence.processAt[number * 2 + 1] as number;
    const from = answer.line[sender];
    const to = answer.line[receiver];
    const sent = from === undefined ? [] : sets.sentAt(number, from.position);
    const received = to === undefined ? [] : sets.receivedAt(number, to.position);
    const seen = to === undefined ? [] : sets.seenAt(number, to.position);
    const orphans = subtract(seen, sent);
    if (orphans.length > 0)
      reject(`[${orphans[0]}, ${orphans[1]}) of channel "${channel}" is received or seen, not sent`);
    const inTransit = subtract(sent, received);
    for (let i = 0; i < inTransit.length; i += 2)
      checkInTransit(answer.inTransit[listed++], {
        channel,
        from: from?.process ?? "",
        to: to?.process ?? null,
        begin: inTransit[i] as number,
        end: inTransit[i + 1] as number,
      });
    if (question.inTransit === "any" || to?.action === "continue") return;
    const lost = subtract(inTransit, sets.logged(number, sender));
    if (lost.length > 0)
      reject(`[${lost[0]}, ${lost[1]}) of channel "${channel}" is in transit, not replayable`);
  });
  if (listed !== answer.inTransit.length) reject("ranges listed as in transit that are not");
}

/** Of an outside channel: what its process has undone, range by range in order of channels. */
function checkOutside(evidence: Evidence, sets: OffsetSets, answer: RecoveryLine): void {
  const inputs: OutsideRange[] = [];
  const outputs: OutsideRange[] = [];
  evidence.channels.forEach((channel, number) => {
    const process = evidence.outside[number] as number;
    if (process === -1) return;
    for (const end of [evidence.processAt[number * 2], evidence.processAt[number * 2 + 1]])
      if (end !== -1 && end !== process)
        reject(`channel "${channel}" is outside, and another process is at it`);
    const [position, length] = [answer.line[process]?.position ?? 0, evidence.length[process] as number];
    const name = evidence.processes[process] as string;
    const list = (into: OutsideRange[], all: readonly number[], kept: readonly number[]): void => {
      const undone = subtract(all, kept);
      for (let i = 0; i < undone.length; i += 2)
        into.push({ channel, process: name, begin: undone[i] as number, end: undone[i + 1] as number });
    };
    list(inputs, sets.receivedAt(number, length), sets.receivedAt(number, position));
    list(outputs, sets.sentAt(number, length), sets.sentAt(number, position));
  });
  if (!sameRanges(answer.lostInputs, inputs)) reject("the lost inputs are not those listed");
  if (!sameRanges(answer.unsayable, outputs)) reject("the unsayable outputs are not those listed");
}

function sameRanges(listed: readonly OutsideRange[], actual: readonly OutsideRange[]): boolean {
  return (
    listed.length === actual.length &&
    actual.every(({ channel, process, begin, end }, at) => {
      const one = listed[at] as OutsideRange;
      return one.channel === channel && one.process === process && one.begin === begin && one.end === end;
    })
  );
}

function checkInTransit(listed: InTransitRange | undefined, actual: InTransitRange): void {
  const same =
    listed !== undefined &&
    listed.channel === actual.channel &&
    listed.from === actual.from &&
    listed.to === actual.to &&
    listed.begin === actual.begin &&
    listed.end === actual.end;
  if (!same)
    reject(
      `[${actual.begin}, ${actual.end}) of channel "${actual.channel}" is in transit, but not listed so in its place`,
    );
}

/** Each step says "given the step before, this process keeps no more than …"; the least of those must be the line itself. */
function checkMaximal(
  evidence: Evidence,
  histories: Histories,
  failed: ReadonlySet<string>,
  question: Question,
  answer: RecoveryLine,
  proof: ProofSteps,
): void {
  const processes = new Map(evidence.processes.map((name, process) => [name, process]));
  const bytes = new ByteLookup(evidence, histories, question, proof.steps);
  const atMost = new Float64Array(proof.steps.length);
  const forced = new Float64Array(evidence.processes.length).fill(Number.POSITIVE_INFINITY);
  proof.steps.forEach((link, step) => {
    const parent = proof.parents[step] as number;
    if (parent >= step) reject("a step of the proof stands before the one it rests on");
    const process = processes.get(link.process);
    if (process === undefined) reject(`the proof names an unknown process "${link.process}"`);
    const before = parent < 0 ? undefined : { link: proof.steps[parent], atMost: atMost[parent] as number };
    const undone = firstUndone(evidence, histories, failed, bytes, link, process, before, step);
    const keeps = histories.pointAtOrBefore(process, undone - 1);
    atMost[step] = keeps;
    forced[process] = Math.min(forced[process] as number, keeps);
  });
  answer.line.forEach(({ process, position, action }, number) => {
    const expected = action === "continue" ? Number.POSITIVE_INFINITY : position;
    if (forced[number] !== expected)
      reject(`the proof forces "${process}" to ${forced[number]}, the line says ${position} (${action})`);
  });
}

interface StepBefore {
  readonly link: WitnessLink | undefined;
  readonly atMost: number;
}

/** The line of `process` that the rule of this step undoes. Rejects a step whose rule does not apply. */
function firstUndone(
  evidence: Evidence,
  histories: Histories,
  failed: ReadonlySet<string>,
  bytes: ByteLookup,
  link: WitnessLink,
  process: number,
  before: StepBefore | undefined,
  step: number,
): number {
  const end = (evidence.length[process] as number) + 1;
  const wrong = (): never =>
    reject(`the proof's step ${step} (${link.rule} at "${link.process}") does not hold`);
  if (link.rule === "failed" || link.rule === "gap") {
    const holds = link.rule === "failed" ? failed.has(link.process) : !histories.endIsCertain(process);
    return holds && before === undefined ? end : wrong();
  }
  const byte = bytes.at(step);
  if (byte === undefined) return wrong();
  const { sender, receiver, sent, received, known } = byte;
  if ((before === undefined) !== (link.from === undefined)) return wrong();
  if (before !== undefined && before.link?.process !== link.from) return wrong();
  if (
    link.position !== undefined &&
    link.position !== (process === sender && link.rule === "unreplayable" ? sent : known)
  )
    return wrong();
  if ((link.looked === true) !== (link.rule !== "unreplayable" && known !== received)) return wrong();
  const from = before === undefined ? undefined : link.from;
  const nameOf = (at: number): string | undefined => evidence.processes[at];
  if (link.rule === "never-sent")
    return process === receiver && sent === null && known !== null && from === undefined ? known : wrong();
  if (link.rule === "orphan") {
    if (process !== receiver || known === null || from === undefined || from !== nameOf(sender))
      return wrong();
    return sent !== null && sent > (before as StepBefore).atMost ? known : wrong();
  }
  if (process !== sender || sent === null || byte.logged) return wrong();
  if (from === undefined) return receiver < 0 ? sent : wrong();
  if (from !== nameOf(receiver)) return wrong();
  return received === null || received > (before as StepBefore).atMost ? sent : wrong();
}
