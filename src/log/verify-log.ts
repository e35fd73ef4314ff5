/**
 * Reads a whole log and says what is in it and what is damaged. Goes on behind damage: the report names every place.
 * A dead owner's log or a copy; nothing is changed.
 */
import { decodeBlock } from "../format/block.ts";
import { type Anchor, NO_HASH, type SegmentFacts } from "../format/log-anchor.ts";
import { BASE_STATE, baseOf, type LogBase } from "../format/log-base.ts";
import type { ProcessHead } from "../format/log-commit.ts";
import { chainOf } from "../format/log-key.ts";
import { hasCode, RecoveryLineError } from "../model/errors.ts";
import { MAX_FINDINGS } from "../model/limits.ts";
import { readAnchor } from "./anchor-file.ts";
import { checkLevelLock, lockLog } from "./log-lock.ts";
import { anchorPath, checkFolder, diskError, segmentNumbers, segmentPath } from "./log-paths.ts";
import { recover } from "./recover.ts";
import type { ReadableSegment } from "./segment.ts";
import { SegmentShelf } from "./segment-shelf.ts";
import { ChainCheck, type Damage } from "./verify-chain.ts";
import { type Overlap, OverlapFinder } from "./verify-overlaps.ts";

export interface LogReport {
  /** Undefined where neither anchor nor any block tells. */
  readonly application: string | undefined;
  readonly segments: number;
  readonly blocks: number;
  readonly events: number;
  /** Of the blocks. */
  readonly bytes: number;
  readonly processes: number;
  /** Gap lines, undone ones included. */
  readonly gaps: number;
  readonly firstChain: number;
  readonly lastChain: number;
  /** Blocks of the base, which stands for what retention removed before firstChain; 0 = nothing was removed. */
  readonly carriedBlocks: number;
  /** Empty: the log is whole. At most MAX_FINDINGS. */
  readonly damages: readonly Damage[];
  /** Tolerated as set union, but worth a look; empty where the log is damaged. At most MAX_FINDINGS. */
  readonly overlaps: readonly Overlap[];
  /** Damages and overlaps beyond MAX_FINDINGS. */
  readonly omitted: number;
}

/** Throws RL_UNKNOWN_APP, RL_LOCKED, RL_NO_RIGHTS, RL_LOG_WRITE; damage is reported, not thrown. */
export async function verifyLog(dir: string): Promise<LogReport> {
  try {
    return await verified(dir);
  } catch (error) {
    throw diskError(dir, error);
  }
}

async function verified(dir: string): Promise<LogReport> {
  if (!(await checkFolder(dir))) throw nothingThere(dir);
  const unlock = await lockLog(dir);
  const shelf = new SegmentShelf(dir);
  try {
    for (const number of (await segmentNumbers(dir)).slice(-1)) checkLevelLock(dir, segmentPath(dir, number));
    return await new Verification(dir, shelf).run();
  } finally {
    await shelf.closeAll().finally(unlock);
  }
}

function nothingThere(dir: string): RecoveryLineError {
  return new RecoveryLineError("RL_UNKNOWN_APP", `there is no log in ${dir}`);
}

class Verification {
  readonly #dir: string;
  readonly #shelf: SegmentShelf;
  readonly #damages: Damage[] = [];

  constructor(dir: string, shelf: SegmentShelf) {
    this.#dir = dir;
    this.#shelf = shelf;
  }

  async run(): Promise<LogReport> {
    const anchor = await this.#anchor();
    const found = await segmentNumbers(this.#dir);
    if (anchor === undefined && found.length === 0 && this.#damages.length === 0)
      throw nothingThere(this.#dir);
    if (anchor === undefined && this.#damages.length === 0)
      this.#damages.push({ place: anchorPath(this.#dir), why: "missing" });
    const segments = anchor?.segments ?? found.map(unsealed);
    if (anchor?.commit === 0 && !(await this.#everWritten())) return emptyReport(anchor);
    const newest = anchor === undefined ? undefined : await this.#recover(anchor);
    const check = await this.#chain(newest?.anchor ?? anchor, segments, newest?.base);
    if (newest !== undefined) this.#compareHeads(check, newest.heads);
    this.#damages.push(...check.damages);
    const whole = this.#damages.length === 0;
    const overlaps = whole ? await this.#overlaps(check, segments) : { list: [], omitted: 0 };
    return {
      application: anchor?.application,
      segments: segments.length,
      blocks: check.blocks,
      events: check.events,
      bytes: check.bytes,
      processes: check.processes.size,
      gaps: check.gaps,
      firstChain: anchor?.firstChain ?? 1,
      lastChain: check.next - 1,
      carriedBlocks: newest?.base?.blocks.length ?? 0,
      damages: this.#damages.slice(0, MAX_FINDINGS),
      overlaps: overlaps.list,
      omitted: Math.max(0, this.#damages.length - MAX_FINDINGS) + overlaps.omitted,
    };
  }

  async #anchor(): Promise<Anchor | undefined> {
    return await this.#damageOf(anchorPath(this.#dir), () => readAnchor(this.#dir));
  }

  /** Runs `work`; damage it meets goes into the report. */
  async #damageOf<T>(place: string, work: () => Promise<T>): Promise<T | undefined> {
    try {
      return await work();
    } catch (error) {
      if (!hasCode(error, "RL_CORRUPT_LOG")) throw error;
      this.#damages.push({ place, why: error.message });
      return undefined;
    }
  }

  /** With commit 0 nothing was acknowledged: a segment that is not there or not whole is none. */
  async #everWritten(): Promise<boolean> {
    if (!(await segmentNumbers(this.#dir)).includes(1)) return false;
    return await this.#shelf
      .use(1, async (segment) => (await segment.commitRecord()) !== undefined)
      .catch((error: unknown) => {
        if (hasCode(error, "RL_CORRUPT_LOG")) return false;
        throw error;
      });
  }

  /** Newest segment against the anchor: commit record, state, heads. */
  async #recover(anchor: Anchor) {
    const { number } = anchor.segments.at(-1)!;
    return await this.#damageOf(segmentPath(this.#dir, number), () =>
      this.#shelf.use(number, async (segment) => {
        const recovered = await recover(this.#dir, anchor, segment);
        const base = baseOf(recovered.state.get(BASE_STATE));
        return { anchor: recovered.anchor, heads: recovered.state.heads, base };
      }),
    );
  }

  async #chain(
    anchor: Anchor | undefined,
    segments: readonly SegmentFacts[],
    logBase: LogBase | undefined,
  ): Promise<ChainCheck> {
    const firstChain = anchor?.firstChain ?? 1;
    const base = anchor?.baseHash ?? (firstChain === 1 ? NO_HASH : undefined);
    const check = new ChainCheck(anchor?.application, firstChain, base);
    if (logBase?.boundary === firstChain) check.beginWith(logBase.blocks);
    for (const facts of segments) {
      await this.#eachBlock(facts.number, (chain, bytes) => check.add(chain, bytes));
      check.expectUpTo(facts.lastChain);
      const sealedWrong =
        facts.lastChain > 0 && check.hash !== undefined && !same(check.hash, facts.lastHash);
      if (sealedWrong)
        this.#damages.push({
          place: segmentPath(this.#dir, facts.number),
          why: `does not end in the block that sealed it`,
        });
    }
    check.expectUpTo(anchor?.lastChain ?? 0);
    if (anchor !== undefined && check.hash !== undefined && !same(check.hash, anchor.lastHash))
      this.#damages.push({ place: `block ${anchor.lastChain}`, why: "is not the last acknowledged one" });
    return check;
  }

  /** In key order, whatever is there. */
  async #eachBlock(number: number, visit: (chain: number, bytes: Uint8Array) => void): Promise<void> {
    const place = segmentPath(this.#dir, number);
    await this.#damageOf(place, () =>
      this.#shelf.use(number, async (segment: ReadableSegment) => {
        for await (const [key, bytes] of segment.blocks(1, Number.MAX_SAFE_INTEGER)) {
          const chain = chainOf(key);
          if (Number.isNaN(chain)) this.#damages.push({ place, why: "holds a key that is none" });
          else visit(chain, bytes);
        }
      }),
    );
  }

  #compareHeads(check: ChainCheck, heads: ReadonlyMap<string, ProcessHead>): void {
    for (const [process, track] of check.processes) {
      const head = heads.get(process);
      if (head === undefined || head.chain !== track.chain || head.position !== track.position)
        this.#damages.push({ place: `head of process "${process}"`, why: "is not its newest block" });
    }
  }

  async #overlaps(check: ChainCheck, segments: readonly SegmentFacts[]) {
    const finder = new OverlapFinder(check.rollbacks);
    const list: Overlap[] = [];
    let omitted = 0;
    for (const { number } of segments)
      await this.#eachBlock(number, (_, bytes) => {
        const { header, columns } = decodeBlock(bytes);
        for (const overlap of finder.add(columns, header.sequence, header.position))
          if (list.length < MAX_FINDINGS) list.push(overlap);
          else omitted += 1;
      });
    return { list, omitted };
  }
}

function same(one: Uint8Array, other: Uint8Array): boolean {
  return Buffer.compare(one, other) === 0;
}

function unsealed(number: number): SegmentFacts {
  return { number, firstChain: 0, lastChain: 0, bytes: 0, lastHash: NO_HASH };
}

function emptyReport({ application, segments }: Anchor): LogReport {
  const none = { blocks: 0, events: 0, bytes: 0, processes: 0, gaps: 0, omitted: 0 };
  return {
    application,
    segments: segments.length,
    ...none,
    firstChain: 1,
    lastChain: 0,
    carriedBlocks: 0,
    damages: [],
    overlaps: [],
  };
}
