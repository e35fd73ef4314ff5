/** What `demo dsm` tells about pages, read from the traces: what the line keeps, what it undoes, what the restart began with. */
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { processNumbers } from "../compute/compute.ts";
import { exactPageModel, type PageSurvival, survivingCopies } from "../graph/questions/page-transfers.ts";
import { keptPositions, undoneBy } from "../graph/rollback/rollback-model.ts";
import { RecoveryLineError } from "../model/errors.ts";
import type { DsmEvent, PageName } from "../model/event.ts";
import { counted } from "../model/printable.ts";
import type { RecoveryLine } from "../model/recovery-line.ts";
import { table } from "../terminal/print.ts";

/** Undone copies printed, count. */
const MAX_COPIES = 8;
const MOVES = ["page-fault", "page-copy", "page-invalidate"] as const;

/** Splits the events of each process: its first `count(process)` lines, and the others. */
function split(
  events: readonly DsmEvent[],
  count: (process: string) => number,
): { first: DsmEvent[]; rest: DsmEvent[] } {
  const lines = new Map<string, number>();
  const first: DsmEvent[] = [];
  const rest: DsmEvent[] = [];
  for (const event of events) {
    const line = (lines.get(event.process) ?? 0) + 1;
    lines.set(event.process, line);
    (line <= count(event.process) ? first : rest).push(event);
  }
  return { first, rest };
}

function splitAt(
  events: readonly DsmEvent[],
  { line }: RecoveryLine,
): { first: DsmEvent[]; rest: DsmEvent[] } {
  const kept = new Map(line.map(({ process, position }) => [process, position]));
  return split(events, (process) => kept.get(process) ?? 0);
}

/** Per process: page events the line keeps, of those that happened; which copies it undoes; who holds the newest versions. */
export function pageEvidence(events: readonly DsmEvent[], answer: RecoveryLine): string {
  const { first, rest } = splitAt(events, answer);
  const kept = tally(first);
  const undone = tally(rest);
  const rows = answer.line.map(({ process }) => [
    process,
    ...MOVES.map((type) => {
      const inside = kept.get(`${type} ${process}`) ?? 0;
      const all = inside + (undone.get(`${type} ${process}`) ?? 0);
      return all === 0 ? "-" : `${inside}/${all}`;
    }),
  ]);
  const head = ["PROCESS", "FAULTS", "COPIES", "INVALIDATIONS"];
  return `Page evidence, kept by the line / recorded:\n${table(head, rows)}${undoneCopies(rest)}${survivors(events, answer)}`;
}

function tally(events: readonly DsmEvent[]): Map<string, number> {
  const counts = new Map<string, number>();
  for (const { process, type } of events)
    counts.set(`${type} ${process}`, (counts.get(`${type} ${process}`) ?? 0) + 1);
  return counts;
}

function undoneCopies(undone: readonly DsmEvent[]): string {
  const rows: string[][] = [];
  for (const event of undone) {
    if (event.type !== "page-copy" || event.role !== "destination") continue;
    const wrote = event.interval === undefined ? "nobody" : `${event.writer} in interval ${event.interval}`;
    rows.push([event.process, String(event.page), String(event.version), wrote, event.channel]);
  }
  if (rows.length === 0) return "No page copy is undone.\n";
  const more = rows.length > MAX_COPIES ? `... and ${rows.length - MAX_COPIES} more\n` : "";
  const head = ["TO", "PAGE", "VERSION", "WRITTEN BY", "CHANNEL"];
  return `Arrivals of page copies that the line undoes, ${rows.length}:\n${table(head, rows.slice(0, MAX_COPIES))}${more}`;
}

function survivingPages(events: readonly DsmEvent[], { line }: RecoveryLine): PageSurvival[] {
  const kept = new Map(line.map(({ process, position }) => [process, position]));
  return survivingCopies(events, (process) => kept.get(process) ?? 0);
}

function survivors(events: readonly DsmEvent[], answer: RecoveryLine): string {
  const pages = survivingPages(events, answer);
  const lost = pages.filter(({ holders }) => holders.length === 0);
  if (lost.length > 0)
    throw new RecoveryLineError(
      "RL_REJECTED",
      `page ${lost[0]?.page} has no copy of version ${lost[0]?.version} in the line`,
    );
  const retained = pages.filter((page) => page.holders.length === page.retained.length).length;
  const newest = Math.max(0, ...pages.map(({ version }) => version));
  return `${counted(pages.length, "page")} in the line, up to version ${newest}; each has a surviving copy of its newest version, ${retained} of them only because invalidation retains it.\n`;
}

/** The same failure with exact last-writer dependencies instead of conservative ones. */
export function exactComparison(
  events: readonly DsmEvent[],
  failed: readonly string[],
  { line }: RecoveryLine,
): string {
  const model = exactPageModel(events);
  const kept = keptPositions(model.evidence, undoneBy(model, processNumbers(model.evidence, failed)));
  const exact = kept.reduce((sum, position) => sum + position, 0);
  const conservative = line.reduce((sum, { position }) => sum + position, 0);
  return `Page versions are known: with exact last-writer dependencies ${exact} events are kept, with conservative ones ${conservative} (of ${events.length}).\n`;
}

interface Manifest {
  readonly file: string;
  readonly bytes: number;
  readonly sha256: string;
}

/** Every image that the line restores, read and compared with its manifest. */
export async function verifiedImages(
  events: readonly DsmEvent[],
  { line }: RecoveryLine,
  folder: string,
): Promise<string> {
  let images = 0;
  let size = 0;
  for (const event of events) {
    const entry = line.find(({ process }) => process === event.process);
    if (event.type !== "checkpoint" || event.checkpoint !== entry?.checkpoint) continue;
    const manifest = JSON.parse(await readFile(join(folder, `${event.image}.json`), "utf8")) as Manifest;
    const bytes = await readFile(join(folder, manifest.file));
    const sum = createHash("sha256").update(bytes).digest("hex");
    if (sum !== manifest.sha256 || bytes.length !== manifest.bytes)
      throw new RecoveryLineError("RL_DRIVER", `image ${manifest.file} is not what its manifest says`);
    images += 1;
    size += bytes.length;
  }
  return `${counted(images, "image")} of the line read and equal to the SHA-256 of their manifests (${Math.round(size / 1024)} KiB).\n`;
}

/**
 * What the traces tell of the restart: `after` begins, for each process, with all that `before` holds. Throws RL_REJECTED where
 * a page did not come back in the version that the line says is its newest.
 */
export function restartEvidence(
  before: readonly DsmEvent[],
  after: readonly DsmEvent[],
  line: RecoveryLine,
): string {
  const lengths = new Map<string, number>();
  for (const { process } of before) lengths.set(process, (lengths.get(process) ?? 0) + 1);
  const { rest } = split(after, (process) => lengths.get(process) ?? 0);
  const rollbacks = rest.filter(({ type }) => type === "rollback").length;
  const compared = firstVersions(rest, survivingPages(before, line));
  const redone = rest.filter(({ type }) => type === "page-copy").length;
  const undone = splitAt(before, line).rest.filter(({ type }) => type === "page-copy").length;
  return (
    `The traces go on with ${counted(rollbacks, "rollback")}: ${counted(undone, "record")} of page copies undone, ${redone} new ones.\n` +
    `${counted(compared, "page")} came from their homes again, the first time each in the newest version of the line.\n`
  );
}

/** Compares the first copy of each page after the restart with the line. Returns how many pages were copied. */
function firstVersions(events: readonly DsmEvent[], pages: readonly PageSurvival[]): number {
  const first = new Map<PageName, number>();
  for (const { type, page, version } of events)
    if (type === "page-copy" && page !== undefined && version !== undefined)
      first.set(page, Math.min(first.get(page) ?? version, version));
  const newest = new Map(pages.map(({ page, version }) => [page, version]));
  for (const [page, version] of first)
    if (version !== (newest.get(page) ?? 0))
      throw new RecoveryLineError(
        "RL_REJECTED",
        `page ${page} came back in version ${version}, but the line has version ${newest.get(page) ?? 0}`,
      );
  return first.size;
}
