/** Where bytes come from that no image holds: a log of payloads, by channel and byte offset. */
export interface PayloadStore {
  /** Bytes [begin, end) of the channel; undefined where one of them is not there. Throws nothing but errors of its disk. */
  read(channel: string, begin: number, end: number): Promise<Uint8Array | undefined>;
}
