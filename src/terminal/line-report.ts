/** A recovery line for people: who restarts where, what is in transit, and why. All names are escaped. */
import type { Domino } from "../graph/questions/domino.ts";
import { isUnit } from "../log/complete-cut.ts";
import { unrecordedText } from "../logs/unrecorded.ts";
import { counted, printable } from "../model/printable.ts";
import type {
  InTransitRange,
  LineEntry,
  RecoveryLine,
  Witness,
  WitnessLink,
} from "../model/recovery-line.ts";
import type { PlacedPayload } from "../payload/payload-places.ts";
import { outsideText } from "./outside-report.ts";
import { table } from "./print.ts";
import { endedText, type Life } from "./process-life.ts";

/** Rows of a table and witnesses printed, count; --json prints all. */
const MAX_ROWS = 1000;
/** Links of one chain printed, count. */
const MAX_LINKS = 20;

interface Besides {
  readonly domino?: Domino;
  /** Of all that is in transit, in its order. */
  readonly payloads?: readonly PlacedPayload[];
  /** Log directories whose evidence was assumed lost. */
  readonly missing?: readonly string[];
  /** Nodes whose evidence was assumed lost. */
  readonly missingNodes?: readonly string[];
  /** Processes that go on unrecorded, and count as failed. */
  readonly unrecorded?: readonly string[];
  /** Those that run no more. */
  readonly ended?: ReadonlyMap<string, Life>;
}

export function lineReport(
  application: string,
  answer: RecoveryLine,
  { domino, payloads, missing = [], missingNodes = [], unrecorded = [], ended }: Besides = {},
): string {
  const absent = [
    ...missing.map((home) => missingText(`in ${printable(home)}`)),
    ...missingNodes.map((node) => missingText(`of node ${printable(node)}`)),
    unrecordedText(unrecorded),
  ];
  return [
    `${printable(application)}: ${headline(answer)}\n${absent.join("")}`,
    entryTable(answer.line) + endedText(answer.line, ended),
    domino === undefined ? "" : dominoText(domino),
    inTransitTable(answer.inTransit, payloads),
    outsideText(answer),
    witnessList(answer.witnesses),
  ]
    .filter((part) => part !== "")
    .join("\n");
}

/** Nothing where everybody restarts from its newest restore point. */
function dominoText({ depth, breadth, unbounded }: Domino): string {
  if (depth <= 1) return "";
  const start =
    unbounded === 0
      ? ""
      : `; ${counted(unbounded, "process", "processes")} thrown back to the start past all checkpoints`;
  return `Domino effect: up to ${depth} restore points lost in one of ${counted(breadth, "process", "processes")}${start}.\n`;
}

function missingText(whose: string): string {
  return `The log ${whose} is missing; what only it knows counts as lost.\n`;
}

function headline({ outcome, line, evidence }: RecoveryLine): string {
  const back = line.filter(({ action }) => action !== "continue").length;
  const said = `${outcome}, ${back} of ${counted(line.length, "process", "processes")} rolled back`;
  const healed =
    evidence.healed > 0 ? `; ${counted(evidence.healed, "gap")} healed by later checkpoints` : "";
  if (outcome === "clean") return said + healed;
  const lost = evidence.lost > 0 ? `, ${counted(evidence.lost, "event")} known to be lost` : "";
  return `${said}; ${counted(evidence.gaps, "gap")} in the evidence${lost}: the line is safe, maybe earlier than needed${healed}`;
}

function entryTable(line: readonly LineEntry[]): string {
  const rows = line
    .slice(0, MAX_ROWS)
    .map(({ process, action, checkpoint, position }) => [
      printable(process),
      action,
      checkpoint === null ? "-" : String(checkpoint),
      String(position),
    ]);
  return table(["PROCESS", "ACTION", "CHECKPOINT", "POSITION"], rows) + more(line.length, "processes");
}

function inTransitTable(ranges: readonly InTransitRange[], payloads?: readonly PlacedPayload[]): string {
  const own = payloads?.filter(({ place }) => place === "own state").length ?? 0;
  const inside =
    own === 0
      ? ""
      : `${own} ${own === 1 ? "range is" : "ranges are"} on the way inside one process, and part of its checkpoint.\n`;
  const between = (payloads ?? ranges).filter((part) => !("place" in part) || part.place !== "own state");
  const parts = between.filter(({ channel }) => !isUnit(channel));
  const units = between.length - parts.length;
  const empty =
    units === 0
      ? ""
      : `${counted(units, "opening or end", "openings or ends")} of connections ${units === 1 ? "is" : "are"} on the way: that has no bytes to replay.\n`;
  if (parts.length === 0)
    return `Nothing is in transit${own === 0 ? "" : " between processes"}.\n${empty}${inside}`;
  let range = 0;
  const rows = parts.slice(0, MAX_ROWS).map((part) => {
    const { channel, begin, end } = part;
    while (ranges[range]!.channel !== channel || ranges[range]!.end < end) range += 1;
    const { from, to } = ranges[range]!;
    const place = "place" in part ? [part.place] : [];
    return [
      printable(from),
      to === null ? "?" : printable(to),
      String(begin),
      String(end),
      ...place,
      printable(channel),
    ];
  });
  const columns = ["FROM", "TO", "BEGIN", "END", ...(payloads === undefined ? [] : ["PAYLOAD"]), "CHANNEL"];
  const head = "In transit: sent inside the line, not received inside it; must be replayed.\n";
  return head + table(columns, rows) + more(parts.length, "ranges") + empty + inside;
}

function witnessList(witnesses: readonly Witness[]): string {
  if (witnesses.length === 0) return "";
  const paragraphs = witnesses.slice(0, MAX_ROWS).map(witnessText);
  return `Why:\n${paragraphs.join("")}${more(witnesses.length, "processes")}`;
}

/** One rolled-back process and its chain, a line a link. */
function witnessText({ process, because }: Witness): string {
  const links = because.map((link) => `    ${linkText(link)}\n`);
  const hidden = links.length - MAX_LINKS;
  if (hidden > 0) links.splice(MAX_LINKS / 2, hidden, `    ... ${counted(hidden, "more link")} ...\n`);
  return `  ${printable(process)}\n${links.join("")}`;
}

/** One link in words. */
function linkText(link: WitnessLink): string {
  const process = printable(link.process);
  const from = link.from === undefined ? "" : printable(link.from);
  const range = `[${link.begin}, ${link.end}) of ${printable(link.channel ?? "")}`;
  const at = link.position === undefined ? "" : ` (at position ${link.position})`;
  const did = link.looked === true ? "looked at" : "received";
  switch (link.rule) {
    case "failed":
      return `${process} failed`;
    case "gap":
      return `events of ${process} are missing${at}: no position after that is certain`;
    case "orphan":
      if (link.page !== undefined)
        return `${process} received version ${link.version} of page ${printable(String(link.page))}${at}, which ${from} has then not written`;
      return `${process} ${did} ${range}${at}, which ${from} has then not sent`;
    case "never-sent":
      return `${process} ${did} ${range}${at}, which nobody sent`;
    case "unreplayable":
      return from === ""
        ? `${process} sent ${range}${at}: no log can replay it and no receiver is known`
        : `${process} sent ${range}${at}, which ${from} has then not received and no log can replay`;
  }
}

function more(count: number, what: string): string {
  return count > MAX_ROWS ? `... and ${count - MAX_ROWS} more ${what}; --json prints all\n` : "";
}
