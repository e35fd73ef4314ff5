/** A restart's plan and its end, for people and for programs. */

import { counted, printable, printableSentence } from "../model/printable.ts";
import type { RestartPlan } from "../restart/plan.ts";
import type { RestartResult } from "../restart/restart.ts";
import { outsideText } from "../terminal/outside-report.ts";
import { table } from "../terminal/print.ts";
import { endedText, type Life, withEnds } from "../terminal/process-life.ts";

const MAX_ROWS = 1000;
const PASSED_OVER = {
  bytes: "bytes it had sent are nowhere any more",
  closing: "a connection was being closed, and the other end's image is of another moment",
  obstacle: "something stands in the way of its image",
};

export function planReport(plan: RestartPlan, ended?: ReadonlyMap<string, Life>): string {
  const { application, line, alsoFailed, breaking, passedOver, transit } = plan;
  const back = new Map(plan.targets.map((target) => [target.process, target]));
  const rows = line.line.map(({ process }) => {
    const target = back.get(process);
    if (target === undefined) return [printable(process), "continue", "-", "-"];
    const from = target.action === "restore" ? `image of checkpoint ${target.checkpoint}` : "its command";
    return [printable(process), target.action, String(target.checkpoint), from];
  });
  const tied = alsoFailed.map(
    ({ process, to }) =>
      `${printable(process)} goes back, too: its connection to ${printable(to)} breaks, or broke.\n`,
  );
  const breaks = breaking.map(
    ({ process, to }) =>
      `${printable(process)} goes on; its connection to ${printable(to)} breaks, or broke.\n`,
  );
  const over = passedOver.map(
    ({ process, checkpoint, why }) =>
      `Checkpoint ${checkpoint} of ${printable(process)} is passed over: ${PASSED_OVER[why]}.\n`,
  );
  const broken = transit.broken.map(
    (end) =>
      `${printable(end.process)}: its connection to ${end.socket.remote.address}:${end.socket.remote.port} ${transit.resets.includes(end) ? "is reset: its other end does not go back" : "comes back without the other end"}.\n`,
  );
  return [
    `${printable(application)}: ${line.outcome}, ${counted(back.size, "process", "processes")} of ${line.line.length} come back\n`,
    table(["PROCESS", "ACTION", "CHECKPOINT", "FROM"], rows.slice(0, MAX_ROWS)) + endedText(line.line, ended),
    [...tied, ...breaks, ...over, ...broken, ...dataLines(plan)].join(""),
    transitTable(transit),
    outsideText(line),
  ]
    .filter((part) => part !== "")
    .join("\n");
}

function transitTable({ ranges }: RestartPlan["transit"]): string {
  if (ranges.length === 0) return "Nothing is in transit.\n";
  const rows = ranges
    .slice(0, MAX_ROWS)
    .map(({ from, to, begin, end, place, why, channel }) => [
      printable(from),
      to === null ? "?" : printable(to),
      String(begin),
      String(end),
      why === undefined ? place : `${place}: ${why}`,
      printable(channel),
    ]);
  return `In transit, and where it is:\n${table(["FROM", "TO", "BEGIN", "END", "PLACE", "CHANNEL"], rows)}`;
}

/** The folders that are put back. */
function dataLines({ targets }: RestartPlan): string[] {
  return targets.flatMap(({ process, checkpoint, trees }) =>
    trees.map(({ root }) => {
      const moment = checkpoint === 0 ? "before it began" : `at checkpoint ${checkpoint}`;
      return `${printableSentence(root)} is put back as it was for ${printable(process)} ${moment}.\n`;
    }),
  );
}

export function keptText(folders: readonly string[]): string {
  return folders.map((folder) => `What was overwritten is kept in ${printableSentence(folder)}\n`).join("");
}

export function resultReport({ plan, phasesMs, kept }: RestartResult): string {
  const parts = Object.entries(phasesMs).map(([phase, ms]) => `${phase} ${ms.toFixed(0)} ms`);
  const outside = outsideText(plan.line);
  const restarted = counted(plan.targets.length, "process", "processes");
  return `${restarted} restarted: ${parts.join(", ")}.\n${keptText(kept)}${outside === "" ? "" : `\n${outside}`}`;
}

/** Without images' contents. */
export function planJson(
  plan: RestartPlan,
  ended: ReadonlyMap<string, Life> = new Map(),
): Record<string, unknown> {
  const { application, failed, alsoFailed, breaking, passedOver, line, targets, transit } = plan;
  return {
    application,
    outcome: line.outcome,
    failed,
    alsoFailed,
    breaking,
    passedOver,
    line: withEnds(line.line, ended),
    restarted: targets.map(({ process, action, checkpoint }) => ({ process, action, checkpoint })),
    data: targets.flatMap(({ process, trees }) => trees.map(({ root }) => ({ process, root }))),
    inTransit: transit.ranges,
    connections: transit.ends.map(({ process, entry, announcement }) => ({
      process,
      sends: entry.sends,
      receives: entry.receives,
      sent: announcement.sent,
      received: announcement.received,
      unacknowledged: announcement.unacknowledged,
    })),
    broken: transit.broken.map((end) => ({
      process: end.process,
      sends: end.entry.sends,
      receives: end.entry.receives,
      remote: `${end.socket.remote.address}:${end.socket.remote.port}`,
      reset: transit.resets.includes(end),
    })),
    lostInputs: line.lostInputs,
    unsayable: line.unsayable,
    evidence: line.evidence,
  };
}
