/** Where what a line leaves in transit can be taken from, as far as logs tell; images are opened by `restart` alone (transit.ts). */

import { lastStable } from "../graph/evidence/restore-points.ts";
import { type Evidence, SENDER } from "../model/evidence-layout.ts";
import type { PayloadRange } from "../model/payload-store.ts";
import type { InTransitRange, RecoveryLine } from "../model/recovery-line.ts";
import { openPayloadStore } from "./payload-log.ts";
import { addRange, subtractRange } from "./payload-ranges.ts";

/**
 * connection: both ends go on, nothing need be replayed · own state: both ends are of one process, whose checkpoint holds it ·
 * message log: the sender's log covers the send (`stable`) · payload log: kept by `run --payload` · unknown: in no log; images may hold it
 */
export type PayloadPlace = "connection" | "own state" | "message log" | "payload log" | "unknown";

export interface PlacedPayload extends PayloadRange {
  readonly channel: string;
  readonly place: PayloadPlace;
}

/** Ranges of a channel by name, sorted and disjoint. */
type RangesOf = (channel: string) => Promise<readonly PayloadRange[]>;

/**
 * All of `line.inTransit`, cut where the place changes, in its order. `appDirs`: the application's directories, `<home>/<app>`; none
 * where the events come from a file. Throws what reading a payload log throws.
 */
export async function placePayloads(
  evidence: Evidence,
  line: RecoveryLine,
  appDirs: readonly string[],
): Promise<PlacedPayload[]> {
  if (line.inTransit.length === 0) return [];
  const goesOn = new Set(
    line.line.filter(({ action }) => action === "continue").map(({ process }) => process),
  );
  const stores = appDirs.flatMap((dir) => openPayloadStore(dir) ?? []);
  const messageLog = messageLogged(evidence);
  const payloadLog: RangesOf = async (channel) => {
    const kept: PayloadRange[] = [];
    for (const store of stores) for (const range of await store.ranges(channel)) addRange(kept, range);
    return kept;
  };
  try {
    const placed: PlacedPayload[] = [];
    for (const range of line.inTransit) {
      const settled = settledPlace(range, goesOn);
      placed.push(
        ...(settled === undefined ? await inLogs(range, messageLog, payloadLog) : [at(range, settled)]),
      );
    }
    return placed;
  } finally {
    for (const store of stores) await store.close();
  }
}

/** Undefined: it is somewhere in a log, or nowhere. */
function settledPlace(
  { from, to }: InTransitRange,
  goesOn: ReadonlySet<string>,
): "connection" | "own state" | undefined {
  if (to !== null && goesOn.has(from) && goesOn.has(to)) return "connection";
  return from === to ? "own state" : undefined;
}

function at({ channel, begin, end }: InTransitRange, place: PayloadPlace): PlacedPayload {
  return { channel, begin, end, place };
}

async function inLogs(
  range: InTransitRange,
  messageLog: RangesOf,
  payloadLog: RangesOf,
): Promise<PlacedPayload[]> {
  const placed: PlacedPayload[] = [];
  let rest: PayloadRange[] = [{ begin: range.begin, end: range.end }];
  for (const [place, rangesOf] of [
    ["message log", messageLog],
    ["payload log", payloadLog],
  ] as const) {
    if (rest.length === 0) break;
    for (const kept of await rangesOf(range.channel)) {
      for (const { begin, end } of rest)
        if (kept.begin < end && kept.end > begin)
          placed.push(
            at({ ...range, begin: Math.max(begin, kept.begin), end: Math.min(end, kept.end) }, place),
          );
      rest = rest.flatMap((part) => subtractRange([part], kept));
    }
  }
  placed.push(...rest.map(({ begin, end }) => at({ ...range, begin, end }, "unknown")));
  return placed.sort((a, b) => a.begin - b.begin);
}

/** What was sent at or before its sender's last effective `stable` line. */
function messageLogged(evidence: Evidence): RangesOf {
  if (!evidence.sawStable) return async () => [];
  const numbers = new Map(evidence.channels.map((name, channel) => [name, channel]));
  let last: { readonly channel: string; readonly ranges: readonly PayloadRange[] } | undefined;
  return async (channel) => {
    if (last?.channel !== channel)
      last = { channel, ranges: coveredSends(evidence, numbers.get(channel) as number) };
    return last.ranges;
  };
}

function coveredSends(evidence: Evidence, channel: number): PayloadRange[] {
  const side = 2 * channel + SENDER;
  const { start, line, begin, end } = evidence.rows;
  const stable = lastStable(evidence, evidence.processAt[side] as number);
  const covered: PayloadRange[] = [];
  for (let row = start[side] as number; row < (start[side + 1] as number); row += 1)
    if ((line[row] as number) <= stable)
      addRange(covered, { begin: begin[row] as number, end: end[row] as number });
  return covered;
}
