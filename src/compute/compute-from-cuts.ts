/**
 * The line from checkpoint cut vectors alone, read newest first and only as far as the rollback reaches.
 *
 * Read of each process: what it did since its newest cut, and its newest k checkpoints. The oldest of these stands for the beginning:
 * everything before it counts as one interval, at whose end its cut says what had been sent and received. Why the answer is the
 * one that all events give (numbers: docs/semantics.md):
 *
 * 1. Cuts cover: each names every channel end its process used before, at that offset or above (`log/cut-coverage.ts`). So without page
 *    traffic, message logs and checkpoints without cuts, the events between two cuts add nothing to the sets at a restore point (4).
 * 2. A byte known from a cut alone counts at the checkpoint (sent) or after the one before (received, or at the first gap there). Its
 *    event stands between the same two checkpoints, and no restore point lies between them (3): both lines round to the same interval.
 *    So the dependencies between intervals are the same.
 * 3. Intervals before the oldest checkpoint read are merged into one, that is, their marks are joined. A mark enters the merged interval
 *    here exactly if it enters one of its parts there. While none does, all marks are the same. If one does (a process falls below its
 *    oldest checkpoint read), twice as many of its checkpoints are read and the question is asked again.
 * 4. Gaps count wherever they stand: the chain of irregular blocks leads to all of them, also to those that the first block of the log's
 *    base stands for. A gap before a cut is healed by it (3).
 * 5. Who stands at a channel end is told by lines in effect and by undone ones (a channel keeps its ends). Where the receiver of what is in
 *    transit is not known, or by a cut at offset 0 alone, undone lines are read, those of the newest rollback first, until one tells; if none
 *    does within half of what may be read yet, the events must.
 * 6. A cut may leave channels out that have ended and that an older one names (`BlockHeader.forgets`, log/complete-cut.ts). Where both ends'
 *    cuts do, the channel couples what is merged into the two oldest intervals, and nothing else. Where only one end's do, the other end is
 *    unknown here: older cuts are read until one names it. Openings and endings: who left out a receive had its send in a covering cut, so
 *    that only a send which a cut names and the line undoes can have a receiver that nothing here names; which of them are in transit
 *    the events alone tell.
 * 7. What was looked at counts like what was received: cuts that cover say it (`Cut.seen`), so 1 and 2 hold for it, too.
 * 8. A channel that is outside makes no dependency. That it is, is told by a line anywhere in its process: the cuts say it of what they name
 *    (`Cut.outside`), the lines read of themselves; a process that has such lines at all says so in the blocks of its cuts. A channel of such
 *    a process whose other end nothing here names may be outside by a line that was not read: then the events must tell. Inputs and outputs
 *    that are undone stand behind the position that is kept: if older than the newest cut, all lines since are read. A process that was
 *    attached voids such lines by any of its own, undone ones, too: where one was and something was rolled back, the events must tell. So they
 *    must where what was read contradicts itself: lines that were not read may say why.
 *
 * Where one of these does not hold the answer is `undefined` with a reason, never a guess: compute-app.ts then takes the events.
 */
import type { ParsedBlock } from "../format/block-header.ts";
import { EvidenceBuilder } from "../graph/evidence/evidence-builder.ts";
import { keptPositions, rollbackModel, undoneBy } from "../graph/rollback/rollback-model.ts";
import { isUnit } from "../log/complete-cut.ts";
import type { CutSource } from "../log/log-sources.ts";
import { windowOf } from "../model/block-window.ts";
import { hasCode } from "../model/errors.ts";
import { type CutRows, type Evidence, RECEIVER, SENDER } from "../model/evidence-layout.ts";
import { CUT_BUDGET_SHARE, LEAST_CUT_BUDGET_BLOCKS } from "../model/limits.ts";
import type { RecoveryLine } from "../model/recovery-line.ts";
import { type ComputeOptions, computeLine, processNumbers } from "./compute.ts";
import { CutHistory, NeedsEvents } from "./cut-history.ts";

export type FromCuts =
  | { readonly line: RecoveryLine; readonly evidence: Evidence; readonly blocksRead: number }
  | { readonly line: undefined; readonly reason: string };

/** What reading a whole window costs, in single blocks. Of a log so large that one of CUT_BUDGET_SHARE may be read singly, a quarter may be in windows. */
const WINDOW_COST = 7;

/** Processes whose blocks are fetched at one time: LevelDB's threads work meanwhile. */
const FETCHES = 16;

/** The line, or why it takes the events. Throws what `computeLine` and reading throw. */
export async function computeFromCuts(
  sources: readonly CutSource[],
  options: ComputeOptions,
): Promise<FromCuts> {
  try {
    return await fromCuts(new Reading(sources), options);
  } catch (error) {
    if (error instanceof NeedsEvents) return { line: undefined, reason: error.message };
    throw error;
  }
}

async function fromCuts(reading: Reading, options: ComputeOptions): Promise<FromCuts> {
  if (options.inTransit === "logged") throw new NeedsEvents("which message is logged stands with the events");
  await reading.begin();
  for (;;) {
    const evidence = reading.evidence();
    if (reading.mayVoidOutside && evidence.outside.some((holder) => holder !== -1))
      throw new NeedsEvents("a channel may not be outside by undone lines of a process that was attached");
    const silent = reading.histories.filter(({ leavesOut }) => leavesOut);
    const short =
      silent.length > 0 && hasLooseEnd(evidence) ? silent : tooShort(reading.histories, evidence, options);
    if (short.length > 0) {
      await inTurns(short, (history) => history.load(history.depth * 2 + 1));
      continue;
    }
    if (mayBeOutside(evidence, reading.histories))
      throw new NeedsEvents("a channel may be outside by a line that cuts do not tell");
    const whole = computeLine(evidence, options);
    const untold = reading.untold(whole);
    if (untold.length > 0) {
      await inTurns(untold, ({ history, position }) => history.loadSince(position));
      continue;
    }
    const line = silent.length === 0 ? whole : withoutUnits(whole);
    const nameless = reading.rolledBack ? reading.nameless(line, evidence) : [];
    if (nameless.length > 0) {
      await reading.nameReceivers(new Set(nameless));
      continue;
    }
    return { line, evidence, blocksRead: reading.blocksRead };
  }
}

function withoutUnits(line: RecoveryLine): RecoveryLine {
  return { ...line, inTransit: line.inTransit.filter(({ channel }) => !isUnit(channel)) };
}

/** A cut names a channel whose other end nothing here names; of openings and endings: a receive, also one that lines alone name. */
function hasLooseEnd({ processAt, cuts, rows, channels, outside }: Evidence): boolean {
  for (let end = 0; end < processAt.length; end += 1) {
    const channel = end >>> 1;
    if (processAt[end] !== -1 || outside[channel] !== -1) continue;
    const unit = isUnit(channels[channel] as string);
    if (unit && end % 2 === RECEIVER) continue; // `undoesUnit`
    const named = (cuts.start[end ^ 1] as number) < (cuts.start[(end ^ 1) + 1] as number);
    if (named || (unit && (rows.start[end ^ 1] as number) < (rows.start[(end ^ 1) + 1] as number)))
      return true;
  }
  return false;
}

/** The line undoes the sending of an opening or ending that a cut names and nobody here receives. */
function undoesUnit({ processAt, cuts, segments, channels }: Evidence, kept: Uint32Array): boolean {
  for (let channel = 0; channel < channels.length; channel += 1) {
    const sends = channel * 2 + SENDER;
    const first = cuts.start[sends] as number;
    if (processAt[channel * 2 + RECEIVER] !== -1 || first === cuts.start[sends + 1]) continue;
    const line = segments.line[cuts.segment[first] as number] as number;
    if ((kept[processAt[sends] as number] as number) < line && isUnit(channels[channel] as string))
      return true;
  }
  return false;
}

/** A channel on which something went and one of whose ends, or both, are that of one process with `outside` lines: they may name it. */
function mayBeOutside(evidence: Evidence, histories: readonly CutHistory[]): boolean {
  const suspects = new Set(histories.filter(({ hasOutside }) => hasOutside).map(({ process }) => process));
  if (suspects.size === 0) return false;
  const { processAt, rows, cuts, peeks, seen, outside, processes } = evidence;
  const isEmpty = (start: Uint32Array, from: number, to: number): boolean => start[from] === start[to];
  return outside.some((holder, channel) => {
    const [sender, receiver] = [processAt[channel * 2] as number, processAt[channel * 2 + 1] as number];
    const alone = sender === -1 ? receiver : receiver === -1 || receiver === sender ? sender : -1;
    if (holder !== -1 || alone === -1 || !suspects.has(processes[alone] as string)) return false;
    return !(
      isEmpty(rows.start, channel * 2, channel * 2 + 2) &&
      isEmpty(cuts.start, channel * 2, channel * 2 + 2) &&
      isEmpty(peeks.start, channel, channel + 1) &&
      isEmpty(seen.start, channel, channel + 1)
    );
  });
}

/** Somebody has received something on it or looked at it, by what was read: who stands there is not told by a cut at offset 0 alone. */
function hasReceived({ rows, cuts, peeks, seen }: Evidence, channel: number): boolean {
  const end = channel * 2 + RECEIVER;
  const isAny = (start: Uint32Array, at: number): boolean => start[at] !== start[at + 1];
  const isAbove0 = ({ start, offset }: CutRows, at: number): boolean =>
    offset.subarray(start[at], start[at + 1]).some((value) => value > 0);
  return (
    isAny(rows.start, end) || isAny(peeks.start, channel) || isAbove0(cuts, end) || isAbove0(seen, channel)
  );
}

/** The histories that the line falls off, and those that may have received what it undoes. */
function tooShort(
  histories: readonly CutHistory[],
  evidence: Evidence,
  options: ComputeOptions,
): CutHistory[] {
  if (histories.every(({ complete }) => complete)) return [];
  const failed = processNumbers(evidence, options.failed ?? evidence.processes);
  const kept = keptPositions(evidence, undoneBy(rollbackModel(evidence, options), failed));
  const numberOf = new Map(evidence.processes.map((name, number) => [name, number]));
  const undoes = undoesUnit(evidence, kept);
  return histories.filter(
    ({ process, knownFrom, leavesOut }) =>
      (undoes && leavesOut) || (kept[numberOf.get(process) as number] as number) < knownFrom,
  );
}

/** All processes of all logs. */
class Reading {
  readonly histories: readonly CutHistory[];
  blocksRead = 0;
  /** What reading them has cost, in single blocks. */
  #cost = 0;
  /** By source: blocks read of each window, at most 2. */
  readonly #windows = new Map<CutSource, Map<number, number>>();
  /** Channels whose receiver undone lines have told. */
  readonly #named = new Set<string>();
  /** Reading more than that takes longer than reading everything in order. */
  readonly #budget: number;

  constructor(sources: readonly CutSource[]) {
    const histories: CutHistory[] = [];
    const names = new Set<string>();
    let blocks = 0;
    for (const source of sources) {
      blocks += Math.max(0, source.lastChain - source.firstChain + 1);
      for (const [process, head] of source.heads()) {
        if (names.has(process)) throw new NeedsEvents("two logs hold the same process");
        names.add(process);
        const base = source.firstCarried.get(process);
        histories.push(new CutHistory(process, head, (chain) => this.#read(source, chain), base));
      }
    }
    this.histories = histories;
    this.#budget = Math.max(LEAST_CUT_BUDGET_BLOCKS, Math.floor(blocks / CUT_BUDGET_SHARE));
    if (histories.length > this.#budget) throw new NeedsEvents("too few blocks a process to save any");
  }

  get rolledBack(): boolean {
    return this.histories.some(({ rolledBack }) => rolledBack);
  }

  async #read(source: CutSource, chain: number): Promise<ParsedBlock | undefined> {
    if (chain < source.firstChain) return source.carried(chain);
    this.blocksRead += 1;
    this.#cost += this.#costOf(source, windowOf(chain).number);
    if (this.#cost > this.#budget)
      throw new NeedsEvents("so many blocks are needed that reading all is faster");
    return source.block(chain);
  }

  /** Of a window that is walked through all blocks are read together (client/block-windows.ts). */
  #costOf(source: CutSource, window: number): number {
    const windows = this.#windows.get(source) ?? new Map<number, number>();
    this.#windows.set(source, windows);
    const before = windows.get(window) ?? 0;
    windows.set(window, Math.min(2, before + 1));
    return before === 0 ? 1 : before === 1 ? WINDOW_COST : 0;
  }

  async begin(): Promise<void> {
    await inTurns(this.histories, async (history) => {
      await history.load(1);
      await history.loadIrregular(this.#budget);
    });
  }

  /** Processes that undo lines which were not read and may be inputs or outputs. */
  untold({ line }: RecoveryLine): { readonly history: CutHistory; readonly position: number }[] {
    const positions = new Map(line.map(({ process, position }) => [process, position]));
    return this.histories.flatMap((history) => {
      const position = positions.get(history.process) as number;
      return position < history.exchangesFrom ? [{ history, position }] : [];
    });
  }

  /** Something was rolled back, and somebody was attached. */
  get mayVoidOutside(): boolean {
    return this.rolledBack && this.histories.some(({ attached }) => attached);
  }

  /** Channels in transit whose receiver undone lines may tell. */
  nameless({ inTransit }: RecoveryLine, evidence: Evidence): string[] {
    const names = new Set(inTransit.map(({ channel }) => channel).filter((name) => !this.#named.has(name)));
    if (names.size === 0) return [];
    return evidence.channels.filter((name, channel) => names.has(name) && !hasReceived(evidence, channel));
  }

  /** Throws `NeedsEvents` where the undone lines that are kept do not tell all of them. */
  async nameReceivers(channels: Set<string>): Promise<void> {
    const most = (this.#cost + this.#budget) / 2;
    const rollbacks = this.histories
      .flatMap((history) => history.rollbacks.map((chain) => ({ history, chain })))
      .sort((a, b) => b.chain - a.chain);
    for (const { history, chain } of rollbacks) {
      for (const channel of await history.undoneReceives(chain, channels)) {
        channels.delete(channel);
        this.#named.add(channel);
      }
      if (channels.size === 0) return;
      if (this.#cost > most) break;
    }
    throw new NeedsEvents("a receiver may be known from lines alone that were undone long ago");
  }

  /** Throws `NeedsEvents` where what was read contradicts itself. */
  evidence(): Evidence {
    const builder = new EvidenceBuilder();
    try {
      for (const history of this.histories) history.feed(builder);
    } catch (error) {
      if (hasCode(error, "RL_CONTRADICTION")) throw new NeedsEvents(`cuts alone say: ${error.message}`);
      throw error;
    }
    return builder.build();
  }
}

/** `work` on all items, FETCHES at one time. */
async function inTurns<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
  let next = 0;
  const worker = async (): Promise<void> => {
    while (next < items.length) await work(items[next++] as T);
  };
  await Promise.all(Array.from({ length: Math.min(FETCHES, items.length) }, worker));
}
