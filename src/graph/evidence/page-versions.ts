/**
 * Page versions, where a DSM runtime knows them, turn conservative dependencies into exact ones (theory.md, "DSM"):
 *
 *   exact         the copy's reader depends on the interval in which the version's LAST WRITER wrote it, and on nobody in between
 *   conservative  where the writer is not known: on whoever served the copy, as any message
 *
 * A dependency on a writer is put into the evidence as a message from the first line of that interval to the arrival, on a channel of
 * its own; the copy itself becomes what "transfers" ignores. So engine, proof and verifier need no word for it.
 *
 * Exact dependencies need certainty: where a history has a gap or a rollback, everything stays conservative (a cut vector that heals
 * a gap says how many messages arrived, not whose pages were in them).
 */
import { EVENT_KIND, type EventColumns } from "../../format/event-columns.ts";
import type { Event, PageCopyEvent } from "../../model/event.ts";
import type { Evidence } from "../../model/evidence-layout.ts";
import { firstWhere } from "../../model/search.ts";

/** A copy at its destination. */
interface Arrival {
  readonly copy: PageCopyEvent;
  /** Of its destination, 1-based. */
  readonly line: number;
}

/** One end of a channel: by message number. A message that is named twice is null: which of them is right nobody knows. */
type Side<T> = Map<number, T | null>;

interface Copies {
  readonly sent: Side<PageCopyEvent>;
  readonly received: Side<Arrival>;
}

/** One dependency: what the writer did from `written` on, and the first arrival of a version of that interval. */
interface WriterEdge {
  readonly writer: number;
  readonly reader: number;
  readonly written: number;
  readonly arrival: Arrival;
}

/** Evidence with exact dependencies; its rules are "transfers" and "any". */
export interface ExactEvidence {
  readonly evidence: Evidence;
  /** The copy behind a message on a channel that stands for "was written by"; undefined: a channel of the application. */
  readonly copyOf: (channel: string, begin: number) => PageCopyEvent | undefined;
}

/** Collects what events say of page versions, beside an `EvidenceBuilder` that gets the same events. */
export class PageVersions {
  readonly #lines = new Map<string, number>();
  readonly #channels = new Map<string, Copies>();
  #certain = true;

  addEvent(event: Event): void {
    const line = (this.#lines.get(event.process) ?? 0) + 1;
    this.#lines.set(event.process, line);
    if (event.type === "page-copy") this.#copy(event, line);
    else if (event.type === "gap" || event.type === "rollback") this.#certain = false;
  }

  /** All rows of `columns`, behind `before` lines of their process. */
  addColumns(columns: EventColumns, before: number): void {
    for (let row = 0; row < columns.count; row += 1) {
      const kind = columns.kind[row];
      if (kind === EVENT_KIND["page-copy"]) this.#copy(columns.event(row) as PageCopyEvent, before + row + 1);
      else if (kind === EVENT_KIND.gap || kind === EVENT_KIND.rollback) this.#certain = false;
    }
  }

  #copy(event: PageCopyEvent, line: number): void {
    if (event.end !== event.begin + 1) return;
    let copies = this.#channels.get(event.channel);
    if (copies === undefined) {
      copies = { sent: new Map(), received: new Map() };
      this.#channels.set(event.channel, copies);
    }
    const { sent, received } = copies;
    if (event.role === "source") sent.set(event.begin, sent.has(event.begin) ? null : event);
    else received.set(event.begin, received.has(event.begin) ? null : { copy: event, line });
  }

  /** `evidence` is that of the same events. */
  exact(evidence: Evidence): ExactEvidence {
    const exactBegins = new Map<string, Set<number>>();
    const edges = new Map<string, WriterEdge>();
    if (this.#certain)
      for (const [channel, copies] of this.#channels)
        exactBegins.set(channel, exactCopies(evidence, copies, edges));
    return withWriters(evidence, exactBegins, [...edges.values()]);
  }
}

/** Numbers of the copies whose version and last writer both ends agree on; their dependencies go into `edges`. */
function exactCopies(
  evidence: Evidence,
  { sent, received }: Copies,
  edges: Map<string, WriterEdge>,
): Set<number> {
  const exact = new Set<number>();
  for (const [begin, arrival] of received) {
    const source = sent.get(begin);
    if (!arrival || !source || !agree(arrival.copy, source)) continue;
    const { copy, line } = arrival;
    if (copy.version === 0) {
      exact.add(begin); // the zero page, which nobody wrote
      continue;
    }
    const edge = writerEdge(evidence, arrival);
    const own = edge?.writer === edge?.reader;
    if (edge === undefined || (own && edge.written > line)) continue;
    exact.add(begin);
    if (own) continue; // history is a prefix
    const key = `${edge.writer} ${edge.reader} ${edge.written}`;
    if (line < (edges.get(key)?.arrival.line ?? Number.POSITIVE_INFINITY)) edges.set(key, edge);
  }
  return exact;
}

function agree(a: PageCopyEvent, b: PageCopyEvent): boolean {
  return (
    a.version !== undefined &&
    a.page === b.page &&
    a.version === b.version &&
    a.writer === b.writer &&
    a.interval === b.interval
  );
}

/** Undefined where the evidence does not hold the writer, the checkpoint that its interval begins at, or anything after that. */
function writerEdge(evidence: Evidence, arrival: Arrival): WriterEdge | undefined {
  const { writer: name, interval, process } = arrival.copy;
  if (name === undefined || interval === undefined) return undefined;
  const writer = numberOf(evidence.processes, name);
  const checkpoint = writer < 0 ? undefined : checkpointLine(evidence, writer, interval - 1);
  if (checkpoint === undefined || checkpoint >= (evidence.length[writer] as number)) return undefined;
  const reader = numberOf(evidence.processes, process);
  return { writer, reader, written: checkpoint + 1, arrival };
}

/** Place of a name in a sorted list, -1 = not there. */
function numberOf(names: readonly string[], name: string): number {
  const place = firstWhere(0, names.length, (at) => (names[at] as string) >= name);
  return names[place] === name ? place : -1;
}

/** Line of checkpoint `index` of a process; 0 for its initial state. */
function checkpointLine(evidence: Evidence, process: number, index: number): number | undefined {
  const { start, line, index: indices } = evidence.segments;
  const end = start[process + 1] as number;
  const place = firstWhere(start[process] as number, end, (at) => (indices[at] as number) >= index);
  return place < end && indices[place] === index ? line[place] : undefined;
}

/** One channel a pair of writer and reader, with a message an edge. */
function withWriters(
  evidence: Evidence,
  exact: ReadonlyMap<string, ReadonlySet<number>>,
  edges: readonly WriterEdge[],
): ExactEvidence {
  const pairs = new Map<string, WriterEdge[]>();
  // Behind all names in use, as it begins with the last of them.
  const prefix = `${evidence.channels.at(-1) ?? ""}\0`;
  for (const edge of edges) {
    const name = `${prefix}${edge.writer} ${edge.reader}`;
    const pair = pairs.get(name);
    if (pair === undefined) pairs.set(name, [edge]);
    else pair.push(edge);
  }
  const names = [...pairs.keys()].sort();
  const sorted = names.map((name) =>
    (pairs.get(name) as WriterEdge[]).sort(
      (a, b) => a.arrival.line - b.arrival.line || a.written - b.written,
    ),
  );
  return {
    evidence: extended(evidence, ignoredRows(evidence, exact), names, sorted),
    copyOf: (channel, begin) => pairs.get(channel)?.[begin]?.arrival.copy,
  };
}

/** Rows of exact copies are marked like invalidates: their messages carry no dependency of their own any more. */
function ignoredRows(
  { channels, rows }: Evidence,
  exact: ReadonlyMap<string, ReadonlySet<number>>,
): Uint8Array {
  const ignored = Uint8Array.from(rows.invalidate);
  channels.forEach((name, channel) => {
    const begins = exact.get(name);
    if (begins === undefined || begins.size === 0) return;
    const stop = rows.start[channel * 2 + 2] as number;
    for (let row = rows.start[channel * 2] as number; row < stop; row += 1)
      if (begins.has(rows.begin[row] as number) && rows.end[row] === (rows.begin[row] as number) + 1)
        ignored[row] = 1;
  });
  return ignored;
}

/** The evidence with further channels, whose names stand behind all others. */
function extended(
  evidence: Evidence,
  invalidate: Uint8Array,
  names: readonly string[],
  pairs: readonly (readonly WriterEdge[])[],
): Evidence {
  const last = evidence.cuts.start.at(-1) as number;
  /** The further channels have nothing of it. */
  const none = <R extends { readonly start: Uint32Array }>(rows: R): R => ({
    ...rows,
    start: Uint32Array.from([...rows.start, ...names.map(() => rows.start.at(-1) as number)]),
  });
  const ends = pairs.flatMap(([edge]) => [(edge as WriterEdge).writer, (edge as WriterEdge).reader]);
  return {
    ...evidence,
    channels: [...evidence.channels, ...names],
    processAt: Int32Array.from([...evidence.processAt, ...ends]),
    rows: extendedRows(evidence.rows, invalidate, pairs),
    cuts: {
      ...evidence.cuts,
      start: Uint32Array.from([...evidence.cuts.start, ...names.flatMap(() => [last, last])]),
    },
    peeks: none(evidence.peeks),
    seen: none(evidence.seen),
    outside: Int32Array.from([...evidence.outside, ...names.map(() => -1)]),
  };
}

/** One message an edge, its number its offset. The rows of an end stand in the order of its lines. */
function extendedRows(
  rows: Evidence["rows"],
  invalidate: Uint8Array,
  pairs: readonly (readonly WriterEdge[])[],
): Evidence["rows"] {
  const start = [...rows.start];
  const line = [...rows.line];
  const begin = [...rows.begin];
  for (const edges of pairs) {
    const messages = edges.map((edge, number) => ({ number, edge }));
    messages.sort((a, b) => a.edge.written - b.edge.written || a.number - b.number);
    for (const { number, edge } of messages) {
      line.push(edge.written);
      begin.push(number);
    }
    start.push(line.length);
    edges.forEach(({ arrival }, number) => {
      line.push(arrival.line);
      begin.push(number);
    });
    start.push(line.length);
  }
  const more = line.length - rows.line.length;
  return {
    start: Uint32Array.from(start),
    line: Uint32Array.from(line),
    begin: Float64Array.from(begin),
    end: Float64Array.from([...rows.end, ...begin.slice(begin.length - more).map((n) => n + 1)]),
    invalidate: Uint8Array.from([...invalidate, ...new Uint8Array(more)]),
  };
}
