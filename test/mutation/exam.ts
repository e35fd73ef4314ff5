/** Fixed questions with their right answers, and wrong answers to them: what a faulty engine or verifier must stumble over. */
import type { Event } from "../../src/model/event.ts";
import type { RecoveryLine } from "../../src/model/recovery-line.ts";
import { type Answer, canonical, type Options, POLICIES } from "../reference/answer.ts";
import { fixpointLine } from "../reference/fixpoint.ts";
import { answerAt, buildInstance } from "../reference/instance.ts";
import { randomLosses } from "../reference/lose.ts";
import { Random } from "../reference/random.ts";
import { scribble } from "../reference/scribble.ts";
import { randomSetting, simulate } from "../reference/simulate.ts";
import type { Engine } from "./engine-copy.ts";

export interface Question {
  readonly events: readonly Event[];
  readonly options: Options;
  readonly right: string;
}

/** Who noticed a fault. */
export interface Verdict {
  /** An answer without the verifier differs from the definition, or there is none. */
  readonly judge: boolean;
  /** The verifier alone, not knowing the right answer, refused one (or the printed witnesses of one). */
  readonly verifier: boolean;
}

export function questions(count: number): Question[] {
  const list: Question[] = [];
  for (let seed = 0; list.length < count; seed += 1) {
    const random = new Random(seed);
    const found = eventsOf(seed, random);
    const names = [...new Set(found.map(({ process }) => process))].sort();
    if (names.length === 0) continue;
    const events = random.oneIn(2) ? found : [...found, ...names.map(idleLine)];
    const failed = random.oneIn(8) ? {} : { failed: random.subset(names) };
    const options = { ...random.pick(POLICIES), ...failed };
    const instance = buildInstance(events, options);
    list.push({ events, options, right: canonical(answerAt(instance, fixpointLine(instance))) });
  }
  return list;
}

function idleLine(process: string): Event {
  return { type: "page-fault", process, page: "idle", access: "read" };
}

/** Four kinds in turn: what no execution does, long dominoes, losses that cuts heal, and a bit of everything. */
function eventsOf(seed: number, random: Random): readonly Event[] {
  const kind = seed % 4;
  if (kind === 0)
    return scribble(random, {
      processes: 2 + random.below(2),
      lines: 8 + random.below(20),
      outside: random.oneIn(2),
      looks: random.oneIn(2),
      fallingCuts: random.oneIn(2),
    });
  const any = randomSetting(random, 4, 60);
  if (kind === 1) return simulate(seed, { ...any, steps: 30 + any.steps, stable: false, rollbacks: false });
  const setting = kind === 2 ? { ...any, processes: 2, cuts: true, datagrams: false } : any;
  return randomLosses(simulate(seed, setting), random, () => false).events;
}

function evidenceFor(
  engine: Engine,
  events: readonly Event[],
): ReturnType<Engine["EvidenceBuilder"]["prototype"]["build"]> {
  const builder = new engine.EvidenceBuilder();
  for (const event of events) builder.addEvent(event);
  return builder.build();
}

function isRejection(error: unknown): boolean {
  return (error as { code?: string }).code === "RL_REJECTED";
}

/** `checked` and `bare`: the same faulty engine with and without its verifier; `sound` judges printed witnesses. */
export function examine(checked: Engine, bare: Engine, sound: Engine, asked: readonly Question[]): Verdict {
  return {
    judge: asked.some((question) => answersWrongly(bare, question)),
    verifier: asked.some((question) => isRefused(checked, sound, question)),
  };
}

function answersWrongly(engine: Engine, { events, options, right }: Question): boolean {
  try {
    return canonical(engine.computeLine(evidenceFor(engine, events), options)) !== right;
  } catch {
    return true;
  }
}

function isRefused(engine: Engine, sound: Engine, { events, options }: Question): boolean {
  let answer: RecoveryLine;
  try {
    answer = engine.computeLine(evidenceFor(engine, events), options);
  } catch (error) {
    return isRejection(error);
  }
  return !accepts(sound, events, options, answer);
}

function accepts(engine: Engine, events: readonly Event[], options: Options, answer: RecoveryLine): boolean {
  const evidence = evidenceFor(engine, events);
  const failed = options.failed ?? evidence.processes;
  try {
    engine.verifyLine(evidence, { ...options, failed }, answer);
    return true;
  } catch (error) {
    if (!isRejection(error)) throw error;
    return false;
  }
}

/** An answer that a verifier must refuse. */
interface WrongAnswer {
  readonly events: readonly Event[];
  readonly options: Options;
  readonly answer: RecoveryLine;
}

/** Answers that differ from the right ones: to other questions, from less evidence, and with one thing changed. */
export function wrongAnswers(sound: Engine, asked: readonly Question[]): WrongAnswer[] {
  const list: WrongAnswer[] = [];
  asked.forEach(({ events, options, right }, seed) => {
    const solve = (from: readonly Event[], how: Options): RecoveryLine =>
      sound.computeLine(evidenceFor(sound, from), how);
    /** Without an event the rest may be no history: a rollback needs its checkpoint. */
    const solveChanged = (from: readonly Event[]): RecoveryLine[] => {
      try {
        return [solve(from, options)];
      } catch (error) {
        if ((error as { code?: string }).code !== "RL_BAD_INPUT") throw error;
        return [];
      }
    };
    const answer = solve(events, options);
    const tries: RecoveryLine[] = [...changed(answer, new Random(seed))];
    for (const policy of POLICIES) tries.push(solve(events, { ...options, ...policy }));
    tries.push(solve(events, { dsm: options.dsm, inTransit: options.inTransit }));
    for (const process of options.failed ?? [])
      tries.push(solve(events, { ...options, failed: options.failed!.filter((name) => name !== process) }));
    events.forEach((event, i) => {
      const idle = idleLine(event.process);
      const later = events.findLastIndex(
        (line) => line.type === "page-fault" && line.process === event.process,
      );
      if (event.type === "send" && later > i)
        tries.push(...solveChanged(events.with(i, idle).with(later, event)));
      if (event.type !== "checkpoint" && event.type !== "rollback")
        tries.push(...solveChanged(events.with(i, idle)));
    });
    for (const wrong of tries)
      if (canonical(wrong as Answer) !== right) list.push({ events, options, answer: wrong });
  });
  return list;
}

function* changed(answer: RecoveryLine, random: Random): Generator<RecoveryLine> {
  const { line, inTransit, evidence } = answer;
  const at = random.below(line.length);
  const entry = line[at]!;
  yield { ...answer, line: line.with(at, { ...entry, position: entry.position + 1 }) };
  yield { ...answer, line: line.with(at, { ...entry, position: Math.max(0, entry.position - 1) }) };
  yield {
    ...answer,
    line: line.with(at, { ...entry, action: entry.action === "replay" ? "restore" : "replay" }),
  };
  yield { ...answer, line: line.with(at, { ...entry, checkpoint: (entry.checkpoint ?? 0) + 1 }) };
  yield { ...answer, evidence: { ...evidence, lost: evidence.lost + 1 } };
  yield { ...answer, evidence: { ...evidence, healed: evidence.healed + 1 } };
  const undone = { channel: "~", process: entry.process, begin: 0, end: 1 };
  yield { ...answer, lostInputs: [...answer.lostInputs, undone] };
  yield { ...answer, unsayable: answer.unsayable.length > 0 ? answer.unsayable.slice(1) : [undone] };
  const range = random.pick([...inTransit, undefined]);
  if (range === undefined)
    yield {
      ...answer,
      inTransit: [...inTransit, { channel: "~", from: entry.process, to: null, begin: 0, end: 1 }],
    };
  else {
    const place = inTransit.indexOf(range);
    yield { ...answer, inTransit: inTransit.toSpliced(place, 1) };
    yield { ...answer, inTransit: inTransit.with(place, { ...range, end: range.end + 1 }) };
  }
}

/** True if this verifier refuses some right answer or accepts some wrong one. */
export function verifierFails(
  engine: Engine,
  sound: Engine,
  asked: readonly Question[],
  wrong: readonly WrongAnswer[],
): boolean {
  for (const { events, options } of asked) {
    const answer = sound.computeLine(evidenceFor(sound, events), options);
    if (!accepts(engine, events, options, answer)) return true;
  }
  return wrong.some(({ events, options, answer }) => accepts(engine, events, options, answer));
}
