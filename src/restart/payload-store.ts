/**
 * Where bytes come from that no image holds: a log of payloads, by channel and byte offset. `openPayloadStore` (payload-log.ts) opens
 * that of an application; what it promises stands here.
 */
import type { PayloadRange } from "./payload-ranges.ts";

export interface ChannelRange extends PayloadRange {
  readonly channel: string;
}

export interface PayloadFigures {
  readonly segments: number;
  /** Bytes that found no room in the kernel's ring. */
  readonly lostBytes: number;
  /** Bytes of segments that hold no whole record. */
  readonly damagedBytes: number;
}

/** Gives bytes of a segment back to the disk: the length of the file stays, the ranges read as zeros. */
export type PunchHoles = (file: string, ranges: readonly PayloadRange[]) => Promise<void>;

export interface PayloadStore {
  /**
   * The bytes of [begin, end), all of them as the sender's kernel sent them, or undefined where any of them is missing, damaged, or no
   * longer what the sender stands for: a hole. Never a guess. Throws RL_CORRUPT_LOG, RL_LIMIT for more than MAX_PAYLOAD_READ_BYTES.
   */
  read(channel: string, begin: number, end: number): Promise<Uint8Array | undefined>;
}

export interface PayloadLog extends PayloadStore {
  /** Maximal ranges that are there, in order. `read` may still find one of them damaged. */
  ranges(channel: string): Promise<readonly PayloadRange[]>;
  /** Names of all channels of which any byte is there, sorted. */
  channels(): Promise<readonly string[]>;
  figures(): Promise<PayloadFigures>;
  /**
   * The sender restarts where it had sent `from` bytes of the channel: what it had sent beyond is undone and may come again with another
   * content. Durable on return. The sender must stand still or be dead and the collector drained (`drain` empties the payload ring, too);
   * the caller holds the lock of the collection (engine/collect-images.ts).
   */
  cutBack(channel: string, from: number): Promise<void>;
  /** Gives up ranges that no replay needs, and gives their room back to the disk. The caller holds the lock of the collection. */
  prune(ranges: readonly ChannelRange[], punch: PunchHoles): Promise<void>;
  close(): Promise<void>;
}
