/**
 * DSM transfers with known versions (theory.md, "DSM"): exact dependencies instead of the conservative ones of `--dsm transfers`.
 *
 *   exact         the copy's reader depends on the interval in which the version's LAST WRITER wrote it, and on nobody in between
 *   conservative  where the writer is not known: on whoever served the copy, as any message
 *   retention     an invalidated frame keeps its bytes: while its writer keeps having written it, a version has a copy
 *
 * Exact edges need certainty: where a history has a gap or a rollback, everything stays conservative (a cut vector that heals a gap
 * says how many messages arrived, not whose pages were in them).
 */
import type { DsmEvent, PageCopyEvent, PageName, PageVersion } from "../model/event.ts";
import type { InTransitPolicy } from "../model/recovery-line.ts";
import { type DependencyList, dependencies } from "./dependencies.ts";
import { buildDependencyGraph } from "./dependency-graph.ts";
import { EvidenceBuilder } from "./evidence-builder.ts";
import type { Evidence } from "./evidence-layout.ts";
import { matchRanges } from "./match-ranges.ts";
import { IntervalFinder, type RestorePoints, restorePoints } from "./restore-points.ts";
import type { RollbackModel } from "./rollback-model.ts";

/** The cause of a dependency on a last writer, beside the causes of `dependencies.ts`. */
const LAST_WRITER = 0xfffffffe;

type Copy = PageCopyEvent & PageVersion;

/** A copy and the line of its destination, 1-based. */
interface Arrival {
  readonly copy: Copy;
  readonly line: number;
}

/** The model of `rollback-model.ts` with exact page dependencies; `undoneBy` and `keptPositions` take it like any other. */
export function exactPageModel(events: readonly DsmEvent[], inTransit: InTransitPolicy): RollbackModel {
  const certain = !events.some(({ type }) => type === "gap" || type === "rollback");
  const arrivals = certain ? exactArrivals(events) : new Map<string, Arrival>();
  const evidence = evidenceWithout(events, arrivals);
  const points = restorePoints(evidence);
  const matches = matchRanges(evidence, "transfers");
  const { list, base } = dependencies(evidence, points, matches, inTransit);
  addWriterEdges(evidence, points, arrivals, list);
  const graph = buildDependencyGraph(list, evidence.processes.length);
  return { evidence, rules: { dsm: "transfers", inTransit }, points, matches, graph, base };
}

function messageKey({ channel, begin }: { channel: string; begin: number }): string {
  return `${begin} ${channel}`;
}

/** Copies whose version and last writer both ends agree on, by message. */
function exactArrivals(events: readonly DsmEvent[]): Map<string, Arrival> {
  const sources = new Map<string, Copy>();
  const arrivals = new Map<string, Arrival>();
  const lines = new Map<string, number>();
  const checkpoints = new Set(
    events.flatMap((e) => (e.type === "checkpoint" ? [`${e.checkpoint} ${e.process}`] : [])),
  );
  for (const event of events) {
    const line = (lines.get(event.process) ?? 0) + 1;
    lines.set(event.process, line);
    if (event.type !== "page-copy" || event.end !== event.begin + 1) continue;
    if (event.role === "source") sources.set(messageKey(event), event);
    else arrivals.set(messageKey(event), { copy: event, line });
  }
  for (const [key, { copy }] of arrivals) {
    const source = sources.get(key);
    if (source === undefined || !knowsWriter(copy, lines, checkpoints) || !agree(copy, source))
      arrivals.delete(key);
  }
  return arrivals;
}

/** The writer is in the evidence, and so is the checkpoint that its interval begins at. */
function knowsWriter(
  { version, writer, interval }: Copy,
  lines: ReadonlyMap<string, number>,
  checkpoints: ReadonlySet<string>,
) {
  if (version === 0) return true;
  if (version === undefined || writer === undefined || interval === undefined || !lines.has(writer))
    return false;
  return interval === 1 || checkpoints.has(`${interval - 1} ${writer}`);
}

function agree(a: Copy, b: Copy): boolean {
  return a.page === b.page && a.version === b.version && a.writer === b.writer && a.interval === b.interval;
}

/** Exact copies become what "transfers" ignores: their messages carry no dependency of their own any more. */
function evidenceWithout(events: readonly DsmEvent[], arrivals: ReadonlyMap<string, Arrival>): Evidence {
  const builder = new EvidenceBuilder();
  for (const event of events) {
    const ignored = event.type === "page-copy" && arrivals.has(messageKey(event));
    builder.addEvent(ignored ? { ...event, type: "page-invalidate" } : event);
  }
  return builder.build();
}

/** "Undoing the interval in which the version was written undoes its arrival." */
function addWriterEdges(
  evidence: Evidence,
  points: RestorePoints,
  arrivals: ReadonlyMap<string, Arrival>,
  list: DependencyList,
): void {
  const numberOf = new Map(evidence.processes.map((name, number) => [name, number]));
  const writtenIn = new IntervalFinder(points);
  const arrivedIn = new IntervalFinder(points);
  for (const { copy, line } of arrivals.values()) {
    if (copy.version === 0) continue;
    const writer = numberOf.get(copy.writer as string) as number;
    const reader = numberOf.get(copy.process) as number;
    const written = writtenIn.firstLine(
      writer,
      checkpointLine(evidence, writer, (copy.interval as number) - 1) + 1,
    );
    list.push(writer, written, reader, arrivedIn.firstLine(reader, line), LAST_WRITER);
  }
}

/** Line of checkpoint `index` of a process; 0 for its initial state. */
function checkpointLine(evidence: Evidence, process: number, index: number): number {
  const { start, line, index: indices } = evidence.segments;
  let low = start[process] as number;
  let high = (start[process + 1] as number) - 1;
  while (low < high) {
    const middle = (low + high + 1) >>> 1;
    if ((indices[middle] as number) <= index) low = middle;
    else high = middle - 1;
  }
  return line[low] as number;
}

/** What a cut keeps of one page. */
export interface PageSurvival {
  readonly page: PageName;
  /** Newest version that some process of the cut has seen. */
  readonly version: number;
  /** Who holds it there, as a valid or a retained copy; sorted. Empty: no copy survives, which retention rules out. */
  readonly holders: readonly string[];
  /** Those of them that hold it only because invalidation retains. */
  readonly retained: readonly string[];
}

interface Holding {
  version: number;
  valid: boolean;
}

/**
 * The newest version of every page at a cut and who holds it there. `kept(process)` is the number of its lines that the cut keeps.
 * Events without a version are not seen. A page that nobody in the cut ever received does not appear: it is zero at its home.
 */
export function survivingCopies(
  events: readonly DsmEvent[],
  kept: (process: string) => number,
): PageSurvival[] {
  const newest = new Map<PageName, number>();
  const holdings = new Map<PageName, Map<string, Holding>>();
  const lines = new Map<string, number>();
  for (const event of events) {
    const line = (lines.get(event.process) ?? 0) + 1;
    lines.set(event.process, line);
    if (line > kept(event.process) || event.page === undefined || event.version === undefined) continue;
    const holding = holdingAfter(event, event.version);
    if (holding === undefined) continue;
    newest.set(event.page, Math.max(newest.get(event.page) ?? 0, holding.version));
    const holders = holdings.get(event.page) ?? new Map<string, Holding>();
    holdings.set(event.page, holders.set(event.process, holding));
  }
  return [...newest].map(([page, version]) =>
    survival(page, version, holdings.get(page) as Map<string, Holding>),
  );
}

/** What the event's process holds of the page afterwards; undefined: what it held before. */
function holdingAfter(event: DsmEvent, version: number): Holding | undefined {
  const owned = event.owner === true ? 1 : 0;
  if (event.type === "page-invalidate")
    return event.role === "destination" ? { version, valid: false } : undefined;
  if (event.type === "page-copy")
    return event.role === "destination" ? { version: version + owned, valid: true } : undefined;
  return event.type === "receive" && owned === 1 ? { version: version + 1, valid: true } : undefined;
}

function survival(page: PageName, version: number, holders: ReadonlyMap<string, Holding>): PageSurvival {
  const current = [...holders].filter(([, holding]) => holding.version === version);
  const names = current.map(([process]) => process).sort();
  return {
    page,
    version,
    holders: names,
    retained: names.filter((name) => holders.get(name)?.valid === false),
  };
}
