/**
 * Where the collector's records come from: the kernel ring (`kernel-source.ts`), or a ring in memory for tests and
 * instrumented runtimes. The collector knows nothing else about the kernel.
 */

/** One connection of a process at one instant; offsets in bytes, names as in a ring record. */
export interface CutEntry {
  /** Bits of `RingFlag`. */
  readonly flags: number;
  /** 1: behind an open descriptor of the process; 0: its socket exists, but no descriptor shows it. */
  readonly live: number;
  /** Bits of `Told`: what records have told of its opening and ending. */
  readonly told: number;
  readonly local: number;
  readonly remote: number;
  readonly sent: number;
  readonly received: number;
  /** ≥ received: how far it has looked (MSG_PEEK). */
  readonly seen: number;
  /** Bytes sent and not acknowledged by the peer's kernel. */
  readonly unacknowledged: number;
  /** Bytes in the receive queue, not yet taken. */
  readonly queued: number;
}

/** Connections of one process whose sockets exist; what has ended stands in records. */
export interface SourceCut {
  /** False: it holds a connection without a name. */
  readonly complete: boolean;
  /** True: the ring had no room for all that no record tells yet: read it, and ask again. */
  readonly pending: boolean;
  readonly entries: readonly CutEntry[];
}

/** Why the kernel can't follow a process; sticks for the incarnation. */
export interface Verdict {
  readonly cgroupId: number;
  readonly incarnation: number;
  /** 1 << `RingVerdict`. */
  readonly bits: number;
  /** Shared socket: cgroup of the other process that used the first such socket, and the socket's names; else 0. */
  readonly other: number;
  readonly local: number;
  readonly remote: number;
}

/** A connection of a process whose output is held (`run --hold-output`), once it had something to send. */
export interface HeldOutput {
  readonly cgroupId: number;
  /** Names as in a ring record. */
  readonly local: number;
  readonly remote: number;
  /** Offset before which data may go, and before which data was to go; it waits where the second is greater and it is not free. */
  readonly released: number;
  readonly wanted: number;
  /** When it began to wait, ns of the records' clock. */
  readonly since: number;
  /** The other end is of the application, or was said to be. */
  readonly free: boolean;
  readonly host: string;
  readonly port: number;
}

export type Release = Pick<HeldOutput, "local" | "remote" | "released" | "free">;

/** What of a holding process's output goes out uncovered, or (`nameless`, `overflow`) can't be released. */
export interface UnheldOutput {
  readonly cgroupId: number;
  readonly kind: "datagram" | "socket" | "nameless" | "overflow";
  readonly host: string;
  readonly port: number;
}

/** One way to do one part of the capture. */
export interface CapturePart {
  readonly part: string;
  /** Best first among those of its part. */
  readonly variant: string;
  readonly inUse: boolean;
  /** Its programs were loaded, attached and run here. */
  readonly usable: boolean;
  /** One sentence: what it gives and costs, or the kernel's own answer. */
  readonly reason: string;
}

/** Cumulative counters of the capture programs; arrays are indexed by `RingKind`. Statistics: no event is missing for them. */
export interface CaptureCounters {
  /** Records that found no room; others tell what they would have told. */
  readonly lost: readonly number[];
  /** Times a program did not run because it interrupted itself. */
  readonly recursionMisses: number;
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
  /** True: the reader is woken for the first record after all was let go, too; false: only above half full. */
  readonly wakesForFirst: boolean;
  /** Calls back when the kernel woke the reader. Once. */
  onWake(callback: () => void): void;
  /** Nanoseconds of the records' clock. */
  now(): number;
  /** Everything in the cgroup is recorded, or no longer; `incarnation` stands in its records, a new one begins with fresh verdicts. */
  select(cgroupId: number, on: boolean, incarnation: number): void;
  /**
   * Everything in the cgroup is recorded, and ran before: what others were told of its connections is void. `parent`: cgroup of its
   * application, where it does not lie below that; 0: it does. Throws RL_LIMIT, RL_NO_RIGHTS, RL_NOT_SUPPORTED.
   */
  attach(cgroupId: number, incarnation: number, parent: number): void;
  counters(): CaptureCounters;
  /** What the recorded processes did by userfaultfd; undefined: nobody asked to look. */
  userfaultCounts(): UserfaultCounts | undefined;
  /** Connections of a process. What no record tells yet of it goes into the ring first. */
  cut(cgroupId: number): SourceCut;
  /**
   * Puts into the ring whatever the processes did and no record tells yet, closed ends included. True: there was not room for all of it:
   * read the ring, and ask again.
   */
  flush(cgroupIds: readonly number[]): boolean;
  /** Of all selected processes that have any. */
  verdicts(): readonly Verdict[];
  /** What the cgroup sends to outside over TCP waits until it is released, for good. Throws RL_NOT_SUPPORTED. */
  holdOutput(cgroupId: number): void;
  /** How often something was held: while it stands still, nothing new waits. */
  heldCount(): number;
  outputs(): readonly HeldOutput[];
  /** Marks rise, and never fall; whoever waits tries to send at once. */
  release(outputs: readonly Release[]): void;
  /** Each once. */
  takeUnheld(): readonly UnheldOutput[];
  /** Announces TCP connections that a restore is about to make. */
  expectRestore(entries: readonly CutEntry[]): void;
  close(): void;
}
