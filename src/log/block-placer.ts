/** Gives each new block its place: in the chain, among its process's blocks, in the process's history. */
import { decodeBlock, writeBlock } from "../format/block.ts";
import type { BlockPlace } from "../format/block-header.ts";
import { HASH_BYTES } from "../format/block-layout.ts";
import { type BlockPlan, measure, nameLength, planBlock } from "../format/block-measure.ts";
import { EVENT_KIND, EventColumns } from "../format/event-columns.ts";
import type { ProcessHead } from "../format/log-commit.ts";
import { RecoveryLineError } from "../model/errors.ts";
import type { Cut } from "../model/event.ts";
import { MAX_BLOCK_BYTES } from "../model/limits.ts";
import { CutCoverage } from "./cut-coverage.ts";
import type { LogState } from "./log-state.ts";

/** Blocks that have a place and are not committed. */
export interface PlacedBlock {
  readonly chain: number;
  readonly bytes: Uint8Array;
}

const NEW_PROCESS: ProcessHead = {
  chain: 0,
  sequence: 0,
  control: 0,
  irregular: 0,
  position: 0,
  greatestCheckpoint: 0,
};

/** State key: the process of that name has `outside` rows in the log, in effect or undone, kept or removed. */
function outsideState(process: string): string {
  return `outside/${process}`;
}

export class BlockPlacer {
  readonly #application: string;
  readonly #state: LogState;
  /** The block with this number, committed or not; undefined if it is kept no longer. */
  readonly #blockAt: (chain: number) => Promise<Uint8Array | undefined>;
  readonly #coverage: CutCoverage;
  /** Processes with `outside` rows that are not committed yet. */
  readonly #outside = new Set<string>();
  #chain: number;
  #hash: Uint8Array;

  constructor(
    application: string,
    state: LogState,
    last: { readonly lastChain: number; readonly lastHash: Uint8Array },
    blockAt: (chain: number) => Promise<Uint8Array | undefined>,
    mayForget = false,
  ) {
    this.#application = application;
    this.#state = state;
    this.#blockAt = blockAt;
    this.#coverage = new CutCoverage(blockAt, (process) => state.committedHead(process), mayForget);
    this.#chain = last.lastChain;
    this.#hash = last.lastHash;
  }

  /**
   * Hands the columns' blocks to `take`, in order. Throws RL_CONTRADICTION for a rollback to a checkpoint that is not in
   * the process's effective history, RL_LIMIT for an event that is too large: the blocks before it stay placed.
   */
  async place(columns: EventColumns, take: (block: PlacedBlock) => void): Promise<void> {
    const leading = nameLength(this.#application) + nameLength(columns.process);
    for (let from = 0; from < columns.count; ) {
      const plan = planBlock(columns, from, leading);
      const head = this.#state.heads.get(columns.process) ?? NEW_PROCESS;
      const positionAfter =
        plan.rollbackTo === undefined
          ? head.position + plan.shape.rows
          : await this.#afterRollback(columns.process, head, plan);
      if (plan.hasOutside) this.#noteOutside(columns.process);
      const { covers, forgets, outsideAt } = await this.#coverage.take(
        columns,
        plan.from,
        plan.to,
        plan.hasCut,
        head,
      );
      const telling = withOutside(plan, outsideAt, leading);
      const place = {
        ...this.#placeOf(head, plan, positionAfter),
        covers: covers && telling !== undefined,
        forgets,
        outside: this.#hasOutside(columns.process),
      };
      const bytes = writeBlock(place, telling ?? plan);
      this.#advance(columns.process, head, plan, positionAfter, bytes);
      take({ chain: this.#chain, bytes });
      from = plan.to;
    }
  }

  /** On return it asks for no block on its own. */
  stop(): Promise<void> {
    return this.#coverage.stop();
  }

  /** `CutCoverage.complete`; `running`: processes whose accounts it may need besides those in memory. */
  completeCut(process: string, cut: Cut, running: Iterable<string>): Promise<Cut> {
    return this.#coverage.complete(process, cut, this.#headsOf([...running, process]));
  }

  /** `CutCoverage.senderOf`. */
  senderOf(channel: string, running: Iterable<string>): Promise<string | undefined> {
    return this.#coverage.senderOf(channel, this.#headsOf(running));
  }

  /** `CutCoverage.ownerOf`. */
  ownerOf(channel: string, reverse: string, running: Iterable<string>): Promise<string | undefined> {
    return this.#coverage.ownerOf(channel, reverse, this.#headsOf(running));
  }

  /** `CutCoverage.isAtOtherEnd`; `ended`: processes that do not run. */
  isAtOtherEnd(
    process: string,
    channel: string,
    reverse: string,
    ended: readonly string[],
    running: readonly string[],
  ): Promise<boolean | undefined> {
    const heads = this.#headsOf([...ended, ...running]);
    return this.#coverage.isAtOtherEnd(process, channel, reverse, heads, new Set(running));
  }

  #headsOf(processes: Iterable<string>): Map<string, ProcessHead> {
    const heads = new Map<string, ProcessHead>();
    for (const process of processes) {
      const head = this.#state.heads.get(process);
      if (head !== undefined) heads.set(process, head);
    }
    return heads;
  }

  #noteOutside(process: string): void {
    if (this.#hasOutside(process)) return;
    this.#outside.add(process);
    this.#state.put(outsideState(process), true);
  }

  #hasOutside(process: string): boolean {
    return this.#outside.has(process) || this.#state.get(outsideState(process)) === true;
  }

  #placeOf(head: ProcessHead, plan: BlockPlan, positionAfter: number): BlockPlace {
    return {
      application: this.#application,
      chain: this.#chain + 1,
      previousHash: this.#hash,
      sequence: head.sequence + 1,
      previousBlock: head.chain,
      previousControl: head.control,
      previousIrregular: head.irregular,
      position: head.position,
      positionAfter,
      greatestCheckpoint: Math.max(head.greatestCheckpoint, plan.greatestCheckpoint),
    };
  }

  #advance(process: string, head: ProcessHead, plan: BlockPlan, position: number, bytes: Uint8Array): void {
    this.#chain += 1;
    this.#hash = bytes.subarray(bytes.length - HASH_BYTES);
    this.#state.setHead(process, {
      chain: this.#chain,
      sequence: head.sequence + 1,
      control: plan.controls > 0 ? this.#chain : head.control,
      irregular: plan.irregular ? this.#chain : head.irregular,
      position,
      greatestCheckpoint: Math.max(head.greatestCheckpoint, plan.greatestCheckpoint),
    });
  }

  /** The rollback line is the first behind the checkpoint, or the gap that hides it (docs/semantics.md, 1 and 2). */
  async #afterRollback(process: string, head: ProcessHead, plan: BlockPlan): Promise<number> {
    const checkpoint = plan.rollbackTo!;
    if (checkpoint === 0) return 1;
    const base = new RollbackBase(checkpoint);
    base.walk(plan.columns, plan.from, plan.to, head.position);
    if (base.open) await this.#inLog(head, base);
    const { position } = base;
    if (position === undefined)
      throw new RecoveryLineError(
        "RL_CONTRADICTION",
        `process "${process}" has no checkpoint ${checkpoint} in effect to go back to`,
        "A rollback names 0 or a checkpoint that no earlier rollback has undone.",
      );
    return position + 1;
  }

  /** Walks back over the process's control blocks; what a rollback undid lies beyond its position. */
  async #inLog(head: ProcessHead, base: RollbackBase): Promise<void> {
    let greatest = Number.POSITIVE_INFINITY;
    for (let chain = head.control; chain > 0 && base.open; ) {
      const bytes = await this.#blockAt(chain);
      if (bytes === undefined) return base.giveUp();
      const { header, columns } = decodeBlock(bytes);
      if (header.endsInRollback) greatest = Math.min(greatest, header.positionAfter - 1);
      const inEffect = Math.min(columns.count, Math.max(0, greatest - header.position));
      base.walk(columns, 0, inEffect, header.position);
      chain = header.previousControl;
    }
  }
}

/** The same rows, with what is outside in their cuts; undefined where that makes the block too large: then its cuts do not cover. */
function withOutside(
  plan: BlockPlan,
  outsideAt: ReadonlyMap<number, ReadonlySet<string>>,
  leading: number,
): BlockPlan | undefined {
  if (outsideAt.size === 0) return plan;
  const columns = EventColumns.from(plan.columns.process, {
    ...plan.columns,
    extras: new Map(plan.columns.extras),
  });
  for (const [row, outside] of outsideAt) {
    const event = columns.extras.get(row);
    if (event?.type === "checkpoint" && event.cut !== undefined)
      columns.extras.set(row, { ...event, cut: { ...event.cut, outside } });
  }
  const telling = measure(columns, plan.from, plan.to, leading);
  const rows = plan.to - plan.from;
  return telling.sections.size <= MAX_BLOCK_BYTES || rows === 1 ? telling : undefined;
}

/**
 * Looks, newest line first, for what a rollback keeps: up to its checkpoint; if that line is missing, up to the first gap behind the
 * newest older checkpoint, since only there it can have been lost.
 */
class RollbackBase {
  /** Not found yet, and older lines may tell. */
  open = true;
  readonly #checkpoint: number;
  /** The oldest line so far that may be it. */
  #position: number | undefined;

  constructor(checkpoint: number) {
    this.#checkpoint = checkpoint;
  }

  /** The last line to keep; undefined: nothing fits. */
  get position(): number | undefined {
    return this.#position;
  }

  /** Older lines are not kept: nobody can say. */
  giveUp(): void {
    this.#position = undefined;
    this.open = false;
  }

  /** Rows [from, to) in effect; row `from` is line position + 1. */
  walk({ kind, extras }: EventColumns, from: number, to: number, position: number): void {
    for (let row = to - 1; row >= from && this.open; row -= 1) {
      const line = position + row - from + 1;
      if (kind[row] === EVENT_KIND.gap) this.#position = line;
      const event = extras.get(row);
      if (event?.type !== "checkpoint") continue;
      if (event.checkpoint > this.#checkpoint) this.#position = undefined;
      else this.open = false;
      if (event.checkpoint === this.#checkpoint) this.#position = line;
    }
  }
}
