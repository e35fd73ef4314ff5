/**
 * Closed connections that no cut need name any more: the kernel keeps 2^18 of them for all processes together, and cuts would grow for ever.
 *
 * A connection may be forgotten when both its processes are recorded here, both sockets are gone, each end took all that the other sent, and
 * each process has a covering cut with these last offsets at or before the point that no line of any future starts before (`oldest` of
 * engine/gc.ts). Then every line keeps both ends whole: nothing of it can be an orphan or in transit, and no image that is restored has
 * it open. Older cuts go on naming it, so nothing is lost for who reads all; who reads the newest cuts only is told by `forgets`
 * (log/cut-coverage.ts).
 */
import { parseBlock } from "../format/block-header.ts";
import { readColumns } from "../format/block-read.ts";
import { RingFlag } from "../format/ring-layout.ts";
import type { CommittedLog } from "../log/event-log.ts";
import { type EffectiveBlock, HistoryWalk } from "../log/history-walk.ts";
import type { Cut } from "../model/event.ts";
import type { CutEntry, EventSource } from "../ring/event-source.ts";
import type { AppLog } from "./app-log.ts";
import { channelName } from "./channel-names.ts";

export interface ProcessConnections {
  readonly process: string;
  /** All that its cut names now. */
  readonly entries: readonly CutEntry[];
  /** The cut that no line falls below. */
  readonly floor: Cut;
}

/** Connection ends by process. */
type Settled = ReadonlyMap<string, readonly CutEntry[]>;

interface End {
  readonly process: string;
  readonly entry: CutEntry;
}

/** What all these processes may forget together. */
export function settledConnections(processes: readonly ProcessConnections[], bootId: string): Settled {
  const ends = new Map<string, End>();
  for (const { process, entries, floor } of processes)
    for (const entry of entries) {
      const { sends, receives } = channelsOf(entry, bootId);
      const known =
        (floor.sent.get(sends) ?? 0) === entry.sent && (floor.received.get(receives) ?? 0) === entry.received;
      if (known && entry.live === 0 && entry.gone === 1) ends.set(sends, { process, entry });
    }
  const settled = new Map<string, CutEntry[]>();
  for (const { process, entry } of ends.values()) {
    const other = ends.get(channelsOf(entry, bootId).receives)?.entry;
    if (other?.received !== entry.sent || other.sent !== entry.received) continue;
    const own = settled.get(process) ?? [];
    settled.set(process, own);
    own.push(entry);
  }
  return settled;
}

function channelsOf({ flags, local, remote }: CutEntry, bootId: string): { sends: string; receives: string } {
  const unix = (flags & RingFlag.UNIX) !== 0;
  return {
    sends: channelName(unix, bootId, local, remote),
    receives: channelName(unix, bootId, remote, local),
  };
}

/** The newest covering cut at or before the position in a process's history; undefined: none, or older than what the log keeps. */
async function cutBefore(
  { heads }: CommittedLog,
  block: (chain: number) => Promise<Uint8Array>,
  process: string,
  position: number,
): Promise<Cut | undefined> {
  const head = heads.get(process);
  if (head === undefined) return undefined;
  const walk = new HistoryWalk(process, head, async (chain) => {
    try {
      return parseBlock(await block(chain));
    } catch (error) {
      if (error instanceof TypeError) return undefined; // removed
      throw error;
    }
  });
  walk.controlOnly = true;
  for (let found = await walk.next(); found !== undefined; found = await walk.next()) {
    const cut = found.parsed.header.covers ? newestCut(found, position) : undefined;
    if (cut !== undefined) return cut;
  }
  return undefined;
}

function newestCut({ parsed, rows }: EffectiveBlock, position: number): Cut | undefined {
  const { extras } = readColumns(parsed);
  for (let row = Math.min(rows, position - parsed.header.position) - 1; row >= 0; row -= 1) {
    const event = extras.get(row);
    if (event?.type === "checkpoint" && event.cut !== undefined) return event.cut;
  }
  return undefined;
}

/** `entries` without those that are forgotten. */
function without(entries: readonly CutEntry[], forgotten: readonly CutEntry[]): readonly CutEntry[] {
  const names = new Set(forgotten.map(nameOf));
  return entries.filter((entry) => !names.has(nameOf(entry)));
}

function nameOf({ flags, local, remote }: CutEntry): string {
  return `${flags & RingFlag.UNIX}:${local}:${remote}`;
}

/** The cuts that lines of the application never fall below, by process; `oldest`: positions. Throws what reading throws. */
export async function floorsOf(app: AppLog, oldest: ReadonlyMap<string, number>): Promise<Map<string, Cut>> {
  const floors = new Map<string, Cut>();
  const log = app.committed();
  if (log === undefined) return floors;
  for (const [process, position] of oldest) {
    const cut = await cutBefore(log, (chain) => app.block(chain), process, position);
    if (cut !== undefined) floors.set(process, cut);
  }
  return floors;
}

/**
 * Ends what `app.forgetting` began: the kernel and the carried past of restored processes no longer name these ends. To do it again
 * changes nothing, so a crash in between is made good by the next call.
 */
export function finishForgetting(app: AppLog, source: EventSource): void {
  for (const [name, cgroupId, entries] of app.forgetting) {
    source.forgetClosed?.(cgroupId, entries);
    const state = app.processes.get(name)?.state;
    if (state === undefined || state.origin.carried.length === 0) continue;
    state.origin = { ...state.origin, carried: without(state.origin.carried, entries) };
    state.changed = true;
  }
  if (app.forgetting.length > 0) app.forgetting = [];
}
