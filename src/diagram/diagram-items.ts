/**
 * What a space-time diagram shows of the evidence, bounded: per process the last few checkpoints, the gaps among them, the recovery
 * line, and messages, joined where they leave the same interval on the same channel and arrive in the same one.
 */

import type { Matches } from "../graph/evidence/match-ranges.ts";
import { OutsideWorld } from "../graph/rollback/outside-world.ts";
import { type Evidence, RECEIVER, SENDER, USABLE } from "../model/evidence-layout.ts";
import type { RecoveryLine } from "../model/recovery-line.ts";

export interface Bounds {
  /** Processes drawn, count; those that roll back come first. */
  readonly processes: number;
  /** Checkpoints drawn per process, count, the newest ones. */
  readonly checkpoints: number;
  /** Message groups drawn, count; those that cross the line come first, then the newest ones. */
  readonly messages: number;
}

export interface Item {
  /** Line of the process it stands at; the recovery line stands half a line later. */
  readonly position: number;
  readonly text: string;
  /** True for the recovery line. */
  readonly isLine?: boolean;
  /** A receive waits for its send. */
  readonly after?: Item;
}

export interface DiagramRow {
  readonly process: number;
  readonly items: Item[];
  /** The last line before the part that is drawn, 0 = everything is drawn. */
  readonly from: number;
  readonly kept: number;
  readonly continues: boolean;
}

/** Messages of one channel between the same two intervals. Lines: 0 = never. */
export interface Group {
  readonly channel: number;
  begin: number;
  end: number;
  /** Ranges joined, count. */
  ranges: number;
  /** First line sent, last line received. */
  sent: number;
  received: number;
  readonly state: "kept" | "in transit" | "undone" | "never sent" | "outside";
}

export interface Picture {
  readonly rows: DiagramRow[];
  readonly groups: readonly { readonly label: string; readonly group: Group }[];
  readonly hiddenProcesses: number;
  readonly hiddenGroups: number;
}

/** Groups looked at before the newest are chosen, count. */
const MAX_GROUPS = 20_000;

export function chooseItems(
  evidence: Evidence,
  matches: Matches,
  answer: RecoveryLine,
  bounds: Bounds,
): Picture {
  const chosen = chooseProcesses(answer, bounds.processes);
  const rows = chosen.map((process) => rowOf(evidence, answer, process, bounds.checkpoints));
  const rowAt = new Map(rows.map((row) => [row.process, row]));
  const all = [...joinMessages(evidence, matches, rowAt), ...joinExchanges(evidence, rowAt)];
  const shown = all.sort(byInterest).slice(0, bounds.messages).sort(byPlace);
  const groups = shown.map((group, index) => ({ label: labelOf(index), group }));
  for (const { label, group } of groups) placeGroup(evidence, rowAt, label, group);
  for (const row of rows) row.items.sort((a, b) => a.position - b.position);
  return {
    rows,
    groups,
    hiddenProcesses: answer.line.length - rows.length,
    hiddenGroups: all.length - shown.length,
  };
}

function chooseProcesses(answer: RecoveryLine, count: number): number[] {
  const numbers = answer.line.map((_, process) => process);
  const rolledBack = numbers.filter((process) => answer.line[process]?.action !== "continue");
  const others = numbers.filter((process) => answer.line[process]?.action === "continue");
  return [...rolledBack, ...others].slice(0, count).sort((a, b) => a - b);
}

function rowOf(evidence: Evidence, answer: RecoveryLine, process: number, checkpoints: number): DiagramRow {
  const { start, line, index, flags, gap } = evidence.segments;
  const initial = start[process] as number;
  const stop = start[process + 1] as number;
  const first = Math.max(initial, stop - checkpoints);
  const entry = answer.line[process] as RecoveryLine["line"][number];
  const items: Item[] = [];
  for (let s = first; s < stop; s += 1) {
    const name = (flags[s] as number) & USABLE ? `[${index[s]}]` : `(${index[s]})`;
    if (s > initial) items.push({ position: line[s] as number, text: name });
    if (gap[s] !== 0) items.push({ position: gap[s] as number, text: "?" });
  }
  const continues = entry.action === "continue";
  const from = first === initial ? 0 : (line[first] as number) - 1;
  if (!continues && entry.position >= from)
    items.push({ position: entry.position + 0.5, text: "#", isLine: true });
  return { process, items, from, kept: entry.position, continues };
}

/** Which interval of a row a line lies in: the number of checkpoints and recovery lines before it; -1 before what is drawn. */
function intervalOf(row: DiagramRow, line: number): number {
  if (line <= row.from) return -1;
  let interval = 0;
  for (const item of row.items) if (item.position < line) interval += 1;
  return interval;
}

function joinMessages(evidence: Evidence, matches: Matches, rowAt: ReadonlyMap<number, DiagramRow>): Group[] {
  const groups = new Map<string, Group>();
  const { start, begin, end } = matches;
  for (let channel = 0; channel + 1 < start.length; channel += 1) {
    const sender = rowAt.get(evidence.processAt[channel * 2 + SENDER] as number);
    const receiver = rowAt.get(evidence.processAt[channel * 2 + RECEIVER] as number);
    for (let match = start[channel] as number; match < (start[channel + 1] as number); match += 1) {
      const sent = matches.sent[match] as number;
      const received = matches.received[match] as number;
      const out = sender === undefined || sent === 0 ? -1 : intervalOf(sender, sent);
      const into = receiver === undefined || received === 0 ? -1 : intervalOf(receiver, received);
      if (out < 0 && into < 0) continue;
      const key = `${channel} ${out} ${into}`;
      const known = groups.get(key);
      if (known === undefined) {
        if (groups.size === MAX_GROUPS) continue;
        const state = stateOf(sender, receiver, sent, received);
        groups.set(key, {
          channel,
          begin: begin[match] as number,
          end: end[match] as number,
          ranges: 1,
          sent: out < 0 ? 0 : sent,
          received: into < 0 ? 0 : received,
          state,
        });
      } else extend(known, begin[match] as number, end[match] as number, sent, received);
    }
  }
  return [...groups.values()];
}

/** Inputs and outputs of one channel in one interval. */
function joinExchanges(evidence: Evidence, rowAt: ReadonlyMap<number, DiagramRow>): Group[] {
  const groups = new Map<string, Group>();
  for (const { channel, side, line, begin, end } of new OutsideWorld(evidence, "sequential").all()) {
    const row = rowAt.get(evidence.outside[channel] as number);
    const interval = row === undefined ? -1 : intervalOf(row, line);
    if (interval < 0) continue;
    const key = `${channel} ${side} ${interval}`;
    const [sent, received] = side === SENDER ? [line, 0] : [0, line];
    const known = groups.get(key);
    if (known !== undefined) extend(known, begin, end, sent, received);
    else if (groups.size < MAX_GROUPS)
      groups.set(key, { channel, begin, end, ranges: 1, sent, received, state: "outside" });
  }
  return [...groups.values()];
}

/** The group leaves with its first send and arrives with its last receive: so no group arrives before it leaves. */
function extend(group: Group, begin: number, end: number, sent: number, received: number): void {
  if (begin !== group.end) group.ranges += 1;
  group.end = end;
  if (group.sent !== 0) group.sent = Math.min(group.sent, sent);
  if (group.received !== 0) group.received = Math.max(group.received, received);
}

function stateOf(
  sender: DiagramRow | undefined,
  receiver: DiagramRow | undefined,
  sent: number,
  received: number,
): Group["state"] {
  if (sent === 0) return "never sent";
  const kept = sender === undefined || sent <= sender.kept;
  if (!kept) return "undone";
  return received !== 0 && (receiver === undefined || received <= receiver.kept) ? "kept" : "in transit";
}

function byInterest(a: Group, b: Group): number {
  const crosses = Number(isQuiet(a)) - Number(isQuiet(b));
  return crosses || b.received + b.sent - a.received - a.sent;
}

function isQuiet({ state }: Group): boolean {
  return state === "kept" || state === "outside";
}

function byPlace(a: Group, b: Group): number {
  return (a.sent || a.received) - (b.sent || b.received) || a.channel - b.channel || a.begin - b.begin;
}

/** a … z, aa, ab, … */
function labelOf(index: number): string {
  const last = String.fromCharCode(97 + (index % 26));
  return index < 26 ? last : labelOf(Math.floor(index / 26) - 1) + last;
}

function placeGroup(
  evidence: Evidence,
  rowAt: ReadonlyMap<number, DiagramRow>,
  label: string,
  group: Group,
): void {
  const sender = rowAt.get(evidence.processAt[group.channel * 2 + SENDER] as number);
  const receiver = rowAt.get(evidence.processAt[group.channel * 2 + RECEIVER] as number);
  const send: Item = { position: group.sent, text: `${label}>` };
  if (sender !== undefined && group.sent > 0) sender.items.push(send);
  if (receiver === undefined || group.received === 0) return;
  const text = `>${label}`;
  receiver.items.push(
    group.sent > 0 && sender !== undefined
      ? { position: group.received, text, after: send }
      : { position: group.received, text },
  );
}
