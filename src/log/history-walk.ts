/**
 * One process's effective history, block by block, newest first: what a rollback undid is jumped over, not read.
 *
 * A rollback to checkpoint k undoes the lines after c(k), and a line's number is its block's position plus its row; so undone lines are
 * those above the least line that any later rollback kept, and c(k) itself stands in the next control block that begins below that line.
 */
import type { BlockHeader, ParsedBlock } from "../format/block-header.ts";
import type { ProcessHead } from "../format/log-commit.ts";
import { RecoveryLineError } from "../model/errors.ts";

/** A block with lines that are in effect: its first `rows` rows, at lines position + 1, …. A rollback line is not among them. */
export interface EffectiveBlock {
  readonly parsed: ParsedBlock;
  readonly rows: number;
}

/** The block with this number, or undefined if the log keeps it no longer. */
export type ReadBlock = (chain: number) => Promise<ParsedBlock | undefined>;

export class HistoryWalk {
  /** From now on only blocks with control events: checkpoints are in them. */
  controlOnly = false;
  /** Blocks read, count. */
  blocks = 0;
  /** True once older blocks turned out to be dropped. */
  truncated = false;
  readonly #process: string;
  readonly #read: ReadBlock;
  #chain: number;
  /** Lines above it are undone. */
  #ceiling = Number.POSITIVE_INFINITY;
  /** The block that was handed out last. */
  #last: BlockHeader | undefined;

  constructor(process: string, head: ProcessHead, read: ReadBlock) {
    this.#process = process;
    this.#read = read;
    this.#chain = head.chain;
  }

  /** The next older block with lines in effect; undefined at the beginning of what is kept. */
  async next(): Promise<EffectiveBlock | undefined> {
    const last = this.#last;
    this.#last = undefined;
    if (last !== undefined) this.#chain = this.controlOnly ? last.previousControl : last.previousBlock;
    while (this.#chain > 0 && this.#ceiling > 0) {
      const parsed = await this.#read(this.#chain);
      if (parsed === undefined) {
        this.truncated = true;
        return undefined;
      }
      this.blocks += 1;
      const { header } = parsed;
      if (header.process !== this.#process) throw this.#foreign(header);
      if (header.endsInRollback) this.#ceiling = Math.min(this.#ceiling, header.positionAfter - 1);
      const own = header.endsInRollback ? header.rows - 1 : header.rows;
      const rows = Math.min(own, this.#ceiling - header.position);
      if (rows > 0) {
        this.#last = header;
        return { parsed, rows };
      }
      // Either all is undone, and the checkpoint that was gone back to stands in a control block; or it is a rollback line alone.
      const undone = header.position >= this.#ceiling;
      this.#chain = undone || this.controlOnly ? header.previousControl : header.previousBlock;
    }
    return undefined;
  }

  #foreign({ chain, process }: BlockHeader): RecoveryLineError {
    return new RecoveryLineError(
      "RL_CORRUPT_LOG",
      `block ${chain} belongs to process "${process}", the link to it to "${this.#process}"`,
      "`recovery-line verify` lists the damaged places.",
    );
  }
}
