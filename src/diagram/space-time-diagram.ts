/**
 * A space-time diagram in ASCII: one row a process, time to the right, the recovery line as `#`.
 *
 *     p0  --[1]--a>--[2]--#..b>..X        [2] checkpoint 2, (2) not usable, ? a gap
 *     p1  ---------->a--[1]--#..>b..      a> sent, >a received; what # cuts off is undone: dots
 *
 * Columns follow the order that messages force and nothing else: no clock, no order of arrival. A receive stands right of its send.
 * Pure; its size is bounded whatever the evidence is.
 */

import { matchRanges } from "../graph/evidence/match-ranges.ts";
import type { Evidence } from "../model/evidence-layout.ts";
import { RECEIVER, SENDER } from "../model/evidence-layout.ts";
import type { DsmModel, RecoveryLine } from "../model/recovery-line.ts";
import {
  type Bounds,
  chooseItems,
  type DiagramRow,
  type Group,
  type Item,
  type Picture,
} from "./diagram-items.ts";

export interface DiagramOptions {
  /** Absent: everybody failed. */
  readonly failed?: readonly string[] | undefined;
  readonly dsm: DsmModel;
  /** Checkpoints drawn per process, count. */
  readonly checkpoints?: number;
  /** Characters of the longest row, count. */
  readonly width?: number;
  /** Makes a name safe to show. */
  readonly show: (name: string) => string;
}

const WIDTH = 150;
const CHECKPOINTS = 6;
/** From generous to sparse: the first that fits the width is drawn. */
const BOUNDS: readonly Bounds[] = [
  { processes: 24, checkpoints: CHECKPOINTS, messages: 52 },
  { processes: 24, checkpoints: 3, messages: 26 },
  { processes: 16, checkpoints: 2, messages: 12 },
  { processes: 16, checkpoints: 1, messages: 4 },
];
const NAME_CHARACTERS = 20;
const CHANNEL_CHARACTERS = 60;

/** The diagram with its legend, lines ended by newlines. */
export function spaceTimeDiagram(evidence: Evidence, answer: RecoveryLine, options: DiagramOptions): string {
  const matches = matchRanges(evidence, options.dsm);
  const width = options.width ?? WIDTH;
  let lines: string[] = [];
  for (const bounds of BOUNDS) {
    const checkpoints = Math.min(bounds.checkpoints, options.checkpoints ?? bounds.checkpoints);
    const picture = chooseItems(evidence, matches, answer, { ...bounds, checkpoints });
    const rows = drawRows(evidence, picture, options);
    lines = [...rows.map((row) => cut(row, width)), "", ...legend(evidence, picture, options)];
    if (rows.every((row) => row.length <= width)) break;
  }
  return lines.map((line) => `${line}\n`).join("");
}

function cut(text: string, width: number): string {
  return text.length <= width ? text : `${text.slice(0, width - 1)}~`;
}

function shortName(evidence: Evidence, process: number, options: DiagramOptions, most: number): string {
  return process < 0 ? "?" : cut(options.show(evidence.processes[process] as string), most);
}

function drawRows(evidence: Evidence, { rows }: Picture, options: DiagramOptions): string[] {
  const columns = layOut(rows);
  const names = rows.map(({ process }) => shortName(evidence, process, options, NAME_CHARACTERS));
  const nameWidth = names.reduce((widest, name) => Math.max(widest, name.length), 0);
  const end = rows.reduce((most, row) => Math.max(most, endOf(row, columns)), 1);
  return rows.map((row, at) => {
    const name = evidence.processes[row.process] as string;
    const failed = options.failed === undefined || options.failed.includes(name);
    return `${(names[at] as string).padEnd(nameWidth)}  ${drawRow(row, columns, end, failed)}`;
  });
}

function endOf(row: DiagramRow, columns: ReadonlyMap<Item, number>): number {
  const last = row.items.at(-1);
  return last === undefined ? 1 : (columns.get(last) as number) + last.text.length + 1;
}

function drawRow(row: DiagramRow, columns: ReadonlyMap<Item, number>, end: number, failed: boolean): string {
  const undoneBefore = !row.continues && row.kept < row.from;
  let text = row.from === 0 ? "|" : undoneBefore ? "#~" : "~";
  let fill = undoneBefore ? "." : "-";
  for (const item of row.items) {
    text = text.padEnd(columns.get(item) as number, fill) + item.text;
    if (item.isLine) fill = ".";
  }
  return text.padEnd(end, fill) + (failed ? "X" : row.continues ? "->" : "..");
}

/** Column of each item: right of the one before in its row, and of the send it waits for. Rounds until all stand. */
function layOut(rows: readonly DiagramRow[]): Map<Item, number> {
  const columns = new Map<Item, number>();
  const next = rows.map(() => 0);
  const free = rows.map(() => 3);
  const advance = (row: number, item: Item, column: number): void => {
    columns.set(item, column);
    free[row] = column + item.text.length + 1;
    next[row] = (next[row] as number) + 1;
  };
  for (;;) {
    let moved = false;
    rows.forEach((row, at) => {
      for (let item = row.items[next[at] as number]; item; item = row.items[next[at] as number]) {
        const send = item.after;
        const sendColumn = send === undefined ? 0 : columns.get(send);
        if (sendColumn === undefined) break;
        advance(at, item, Math.max(free[at] as number, sendColumn + (send?.text.length ?? 0)));
        moved = true;
      }
    });
    if (moved) continue;
    // Evidence can contradict causality (a wrong channel name): then the first row that waits goes on.
    const stuck = rows.findIndex((row, at) => (next[at] as number) < row.items.length);
    if (stuck < 0) return columns;
    advance(stuck, (rows[stuck] as DiagramRow).items[next[stuck] as number] as Item, free[stuck] as number);
  }
}

function legend(evidence: Evidence, picture: Picture, options: DiagramOptions): string[] {
  const lines = ["# recovery line, .. undone, [n] checkpoint, (n) not usable, ? gap, X failed"];
  for (const { label, group } of picture.groups)
    lines.push(`${label}  ${describe(evidence, group, options)}`);
  if (picture.hiddenGroups > 0) lines.push(`${picture.hiddenGroups} more groups of messages are not drawn`);
  if (picture.hiddenProcesses > 0) lines.push(`${picture.hiddenProcesses} more processes are not drawn`);
  return lines;
}

function describe(evidence: Evidence, group: Group, options: DiagramOptions): string {
  const ends = [SENDER, RECEIVER].map((side) => {
    const process = evidence.processAt[group.channel * 2 + side] as number;
    if (process === -1 && group.state === "outside") return "outside";
    return shortName(evidence, process, options, NAME_CHARACTERS);
  });
  const channel = cut(options.show(evidence.channels[group.channel] as string), CHANNEL_CHARACTERS);
  const ranges = group.ranges > 1 ? ` in ${group.ranges} ranges` : "";
  return `${ends[0]} -> ${ends[1]}  [${group.begin}, ${group.end})${ranges} of ${channel}: ${group.state === "outside" ? (group.sent > 0 ? "output" : "input") : group.state}`;
}
