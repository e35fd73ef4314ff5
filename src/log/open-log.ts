/** Opening a log, for its owner and for readers: lock, anchor, newest segment, checks. */

import { rm } from "node:fs/promises";
import { type Anchor, NO_HASH, type SegmentFacts } from "../format/log-anchor.ts";
import { BASE_STATE, baseOf, type LogBase } from "../format/log-base.ts";
import { encodeCommit } from "../format/log-commit.ts";
import { COMMIT_KEY } from "../format/log-key.ts";
import { syncFolder } from "../host/replace-file.ts";
import { RecoveryLineError } from "../model/errors.ts";
import { readAnchor, writeAnchor } from "./anchor-file.ts";
import { checkLevelLock, lockLog } from "./log-lock.ts";
import {
  anchorPath,
  checkFolder,
  corrupt,
  diskError,
  makeFolder,
  segmentNumbers,
  segmentPath,
  segmentsPath,
} from "./log-paths.ts";
import { LogState } from "./log-state.ts";
import { checkFolders, type Recovered, recover } from "./recover.ts";
import type { Segment } from "./segment.ts";
import { SegmentShelf } from "./segment-shelf.ts";

export interface OpenedLog extends Recovered {
  readonly shelf: SegmentShelf;
  /** The newest segment, taken from the shelf to write to; undefined for a reader. */
  readonly newest: Segment | undefined;
  /** What stands for removed blocks. */
  readonly base: LogBase | undefined;
  readonly unlock: () => void;
}

/**
 * Opens the log in `dir`. With `create` (the application's name) it is made where there is none.
 * A reader changes nothing; an owner removes leftovers and brings the anchor up to date.
 * Throws RL_UNKNOWN_APP, RL_LOCKED, RL_CORRUPT_LOG, RL_LOG_WRITE, RL_NO_RIGHTS.
 */
export async function openLog(
  dir: string,
  role: "owner" | "reader",
  create: string | undefined,
): Promise<OpenedLog> {
  try {
    return await openChecked(dir, role, create);
  } catch (error) {
    throw diskError(dir, error);
  }
}

async function openChecked(
  dir: string,
  role: "owner" | "reader",
  create: string | undefined,
): Promise<OpenedLog> {
  if (!(await checkFolder(dir))) {
    if (create === undefined) throw unknownLog(dir);
    await makeFolder(dir);
  }
  if (create === undefined && !(await isLog(dir))) throw unknownLog(dir);
  const unlock = await lockLog(dir);
  const shelf = new SegmentShelf(dir);
  try {
    const anchor = (await readAnchor(dir)) ?? (await newAnchor(dir, create));
    const opened = await openNewest(dir, anchor, role, shelf);
    return { ...opened, shelf, unlock };
  } catch (error) {
    await shelf.closeAll().catch(() => undefined);
    unlock();
    throw error;
  }
}

function unknownLog(dir: string): RecoveryLineError {
  return new RecoveryLineError(
    "RL_UNKNOWN_APP",
    `there is no log in ${dir}`,
    "Name another log directory with --log, or import or record something first.",
  );
}

/** A folder without anchor and segments is none, whatever else is in it. */
async function isLog(dir: string): Promise<boolean> {
  return (await readAnchor(dir)) !== undefined || (await segmentNumbers(dir)).length > 0;
}

/** The anchor comes first: whoever finds segments and no anchor knows that it was lost. */
async function newAnchor(dir: string, application: string | undefined): Promise<Anchor> {
  if ((await segmentNumbers(dir)).length > 0) throw corrupt(dir, `${anchorPath(dir)} is missing`);
  if (application === undefined) throw unknownLog(dir);
  const anchor: Anchor = {
    application,
    commit: 0,
    firstChain: 1,
    lastChain: 0,
    baseHash: NO_HASH,
    lastHash: NO_HASH,
    stateDigest: NO_HASH,
    segments: [{ number: 1, firstChain: 1, lastChain: 0, bytes: 0, lastHash: NO_HASH }],
  };
  await writeAnchor(dir, anchor);
  return anchor;
}

async function openNewest(dir: string, anchor: Anchor, role: "owner" | "reader", shelf: SegmentShelf) {
  const { number } = anchor.segments.at(-1)!;
  checkLevelLock(dir, segmentPath(dir, number));
  if (anchor.commit === 0 && !(await hasCommit(dir, number, shelf))) {
    if (role === "reader") return { ...nothing(anchor), newest: undefined, base: undefined };
    await begin(dir, anchor, number, shelf);
  }
  const leftovers = await checkFolders(dir, anchor, shelf);
  const read = await shelf.use(number, (segment) => recover(dir, anchor, segment));
  // An owner's LevelDB, too, must find what is there without it: it opens nothing that is damaged, and leaves that as it is.
  const newest = role === "owner" ? await shelf.takeToWrite(number, false) : undefined;
  const recovered = newest === undefined ? read : await recover(dir, anchor, newest);
  const base = baseOf(recovered.state.get(BASE_STATE));
  const { next, dropped } = withoutBefore(recovered.anchor, base?.boundary ?? 0);
  if (role === "owner") {
    if (recovered.anchorIsBehind || dropped.length > 0) await writeAnchor(dir, next);
    const begun = leftovers.begun === undefined ? [] : [leftovers.begun];
    const away = [...leftovers.dropped, ...dropped.map((one) => one.number), ...begun];
    for (const gone of away) await rm(segmentPath(dir, gone), { recursive: true, force: true });
  }
  return { ...recovered, anchor: next, base, newest };
}

/** The anchor without the sealed segments all of whose blocks come before number `chain`. */
export function withoutBefore(
  anchor: Anchor,
  chain: number,
): { readonly next: Anchor; readonly dropped: readonly SegmentFacts[] } {
  const dropped = anchor.segments.filter(({ lastChain }) => lastChain > 0 && lastChain < chain);
  const last = dropped.at(-1);
  if (last === undefined) return { next: anchor, dropped };
  const segments = anchor.segments.slice(dropped.length);
  return {
    next: { ...anchor, firstChain: last.lastChain + 1, baseHash: last.lastHash, segments },
    dropped,
  };
}

function nothing(anchor: Anchor): Recovered {
  return { anchor, state: new LogState(), segmentBytes: 0, anchorIsBehind: false };
}

/** Nothing was ever acknowledged: a segment that is not there, or not whole, holds nothing. */
async function hasCommit(dir: string, number: number, shelf: SegmentShelf): Promise<boolean> {
  if (!(await segmentNumbers(dir)).includes(number)) return false;
  return await shelf
    .use(number, async (segment) => (await segment.commitRecord()) !== undefined)
    .catch((error: RecoveryLineError) => {
      if (error.code === "RL_CORRUPT_LOG") return false;
      throw error;
    });
}

async function begin(dir: string, anchor: Anchor, number: number, shelf: SegmentShelf): Promise<void> {
  await shelf.retire(number);
  await rm(segmentPath(dir, number), { recursive: true, force: true });
  await makeFolder(segmentsPath(dir));
  const segment = await shelf.takeToWrite(number, true);
  const { commit, lastChain, lastHash, stateDigest } = anchor;
  await segment.write([
    [COMMIT_KEY, encodeCommit({ commit, lastChain, lastHash, stateDigest, segmentBytes: 0 })],
  ]);
  await syncFolder(segmentsPath(dir));
  await syncFolder(dir);
  await shelf.giveBack(number);
}
