/** What answers are computed from: a log's blocks as a stream, and single blocks of it. */
import type { ParsedBlock } from "../format/block-header.ts";
import type { ProcessHead } from "../format/log-commit.ts";
import type { NodeNames } from "../model/collector-answers.ts";
import type { ChainEnds } from "./block-store.ts";

/** The log of one application, as `log/segment-reader.ts` opens it. */
export interface CutSource {
  readonly firstChain: number;
  readonly lastChain: number;
  heads(): ReadonlyMap<string, ProcessHead>;
  /** Throws RL_CORRUPT_LOG. */
  block(chain: number): Promise<ParsedBlock>;
  /** A block of the log's base, which stands for those before firstChain; undefined where it holds none of that number. */
  carried(chain: number): ParsedBlock | undefined | Promise<ParsedBlock | undefined>;
  /** Number of each process's first block in the base. */
  readonly firstCarried: ReadonlyMap<string, number>;
}

/** The blocks of one log. */
export interface NamedBlocks {
  /** Where the log is, for messages. */
  readonly name: string;
  /** In the order of the log; their memory is given away. May be called again: then from the start. */
  blocks(): AsyncIterable<Uint8Array>;
  /** What chain the blocks must form; absent where somebody else has checked that. */
  readonly ends?: ChainEnds;
}

/** The log of one node, open. `name` says where it is. */
export interface NodeLog extends NamedBlocks {
  /** Its blocks by number; absent where they only come as a stream. */
  readonly cuts?: CutSource;
  /** Whose log it is, where that is known. */
  readonly node?: NodeNames | undefined;
  close(): Promise<void>;
}
