/** What processes of an application sent, by channel and byte offset: where a restart takes in-transit bytes from. */

/** Half open. */
export interface PayloadRange {
  readonly begin: number;
  readonly end: number;
}

export interface PayloadStore {
  /**
   * The bytes of [begin, end), all of them as the sender's kernel sent them, or undefined where any of them is missing, damaged, or no
   * longer what the sender stands for: a hole. Never a guess.
   */
  read(channel: string, begin: number, end: number): Promise<Uint8Array | undefined>;
  /** Maximal ranges that are there, in order. `read` may still find one of them damaged. */
  ranges(channel: string): Promise<readonly PayloadRange[]>;
  /**
   * The sender restarts where it had sent `from` bytes of the channel: what it had sent beyond is undone and may come again with another
   * content. Durable on return. The sender must stand still or be dead and the collector drained (`drain` empties the payload ring, too).
   */
  cutBack(channel: string, from: number): Promise<void>;
  close(): Promise<void>;
}
