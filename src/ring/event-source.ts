/**
 * Where the collector's records come from: the kernel ring (`kernel-source.ts`), or a ring in memory for tests and
 * instrumented runtimes. The collector knows nothing else about the kernel.
 */

/** One connection of a process at one instant; offsets in bytes, names as in a ring record. */
export interface CutEntry {
  /** Bits of `RingFlag`. */
  readonly flags: number;
  /** 1: an open socket was read; 0: closed, its last offsets. */
  readonly live: number;
  /** 1: its socket is no more, nothing but the last offsets is left of it. Absent or 0: it may still be there. */
  readonly gone?: number;
  readonly local: number;
  readonly remote: number;
  readonly sent: number;
  readonly received: number;
  /** Bytes sent and not acknowledged by the peer's kernel. */
  readonly unacknowledged: number;
  /** Bytes in the receive queue, not yet taken. */
  readonly queued: number;
}

/** Cumulative counters of the capture programs; arrays are indexed by `RingKind`. */
export interface CaptureCounters {
  readonly committed: readonly number[];
  readonly lost: readonly number[];
  /** Times a program did not run because it interrupted itself: events nobody counted by process. */
  readonly recursionMisses: number;
  /** 1: byte offsets come from the naive rule, which concurrent threads on one socket can break. */
  readonly naive: number;
}

/** Calls of recorded processes that succeeded, and the bytes of their ranges; `fault` and `unread` count messages. */
export type UserfaultCounts = Readonly<
  Record<
    | "fault"
    | "register"
    | "unregister"
    | "copy"
    | "zeropage"
    | "move"
    | "writeprotect"
    | "continue"
    | "drop"
    | "unread",
    { readonly calls: number; readonly bytes: number }
  >
>;

/** What one `drain` did. */
export interface DrainResult {
  /** Records written to the buffer, 64 bytes each (`format/ring-layout.ts`). */
  records: number;
  /** Ring position behind the last slot looked at; `commit` takes it. */
  position: number;
  /** Slots of a foreign length that were skipped: lost records. */
  foreign: number;
  /** True if it stopped at a slot whose producer has not finished. */
  busy: boolean;
}

export interface EventSource {
  /** Names the ring for good: equal ids mean that positions go on. */
  readonly ringId: string;
  /** Names the boot that cgroup ids belong to. */
  readonly bootId: string;
  readonly ringBytes: number;
  /** Reads ahead; the returned object is reused by the next call. Throws RL_BAD_RECORD where the ring is damaged. */
  drain(buffer: Uint8Array): DrainResult;
  /** Lets everything before `position` go; only for what is stored. */
  commit(position: number): void;
  /** Goes back to the last committed position. */
  rewind(): void;
  /** Next position to read. */
  readPosition(): number;
  /** Position behind everything reserved by producers at this instant. */
  producerPosition(): number;
  /** Bytes held by the ring, read or not. */
  fillBytes(): number;
  /** True: the reader is woken for the first record after all was let go, too; absent: only above half full. */
  readonly wakesForFirst?: boolean;
  /** Calls back when the kernel woke the reader. Once. */
  onWake(callback: () => void): void;
  /** Nanoseconds of the records' clock. */
  now(): number;
  select(cgroupId: number, on: boolean): void;
  counters(): CaptureCounters;
  /** What the recorded processes did by userfaultfd; undefined or absent: nobody asked to look. */
  userfaultCounts?(): UserfaultCounts | undefined;
  /** Losses of a process not yet in any record's `lost_before`; reads and clears, count. */
  takeLost(cgroupId: number): number;
  cut(cgroupId: number): { readonly complete: boolean; readonly entries: readonly CutEntry[] };
  /** Closed connections that later cuts need not name; absent where nothing is captured. */
  forgetClosed?(cgroupId: number, entries: readonly CutEntry[]): void;
  /** Announces TCP connections that a restore is about to make; absent where nothing is captured. */
  expectRestore?(entries: readonly CutEntry[]): void;
  close(): void;
}
