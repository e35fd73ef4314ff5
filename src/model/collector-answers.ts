/** What a collector tells: processes, cut vectors, figures; and what it is told of them. */

import type { Cut } from "./event.ts";
import type { CutEntry, HeldOutput, UserfaultCounts } from "./event-source.ts";
import type {
  AttachedPlace,
  PeerNote,
  ProcessData,
  ProcessEnd,
  SharedSocket,
  StartRecipe,
  StoredPeerRules,
  TaskName,
} from "./stored-process.ts";
import type { UnseenChannel } from "./unseen-channel.ts";

/** The node that collects, and all nodes that its applications run on. */
export interface NodeNames {
  readonly name: string;
  readonly all: readonly string[];
}

/** Who is at the other end of a channel with the outside. */
export interface KnownPeer {
  readonly channel: string;
  /** For people. */
  readonly name: string;
  /** Processes of the application that it has given data to, on whatever connection. */
  readonly gave: readonly string[];
}

export interface RestoredPast {
  /** Connections of the image's cut: the restore makes them again. */
  readonly connections: readonly CutEntry[];
  /** Reasons of communication that the image's cut did not cover: they stay with the process. */
  readonly uncaptured: readonly string[];
}

export interface Registration {
  /** Names of `[A-Za-z0-9][A-Za-z0-9._-]{0,63}`. */
  readonly app: string;
  readonly process: string;
  readonly cgroupId: number;
  /** Reasons of `VERDICT_REASONS` ("udp", …) that the user vouches for: no gap, and cuts stay. */
  readonly trust?: readonly string[];
  /** Rules of the whole application (`PeerRules.with`); absent: they stay. */
  readonly rules?: StoredPeerRules;
  /** How to start it again from its initial state; absent: what was known before stays. */
  readonly start?: StartRecipe;
  /** Directory trees that are part of its state; absent: what was known before stays. */
  readonly data?: ProcessData;
  /** A name that it shares with those of the application that belong together, for policies; absent: what was known before stays. */
  readonly group?: string;
  /** Its output to outside waits until the line of all covers it; longest wait that is not told of, ms; 0: it goes. Absent: as before. */
  readonly holdLimitMs?: number;
  /** The command's first task; absent: it is restored from an image, and nobody waits for it. */
  readonly task?: TaskName;
  /** It is restored from an image: what the image says of its past. Absent: it has none. */
  readonly past?: RestoredPast;
  /** It runs already. Absent: it begins now, or it is restored. */
  readonly attached?: AttachedPlace;
  /** With `attached`: a container of that name which is made anew is its next life. Absent: none is. */
  readonly follows?: string;
}

export interface HoldInfo {
  /** Longest wait that is not told of, ms. */
  readonly limitMs: number;
  /** What waits now; absent: nothing. */
  readonly waits?: {
    readonly connections: number;
    readonly bytes: number;
    /** The longest, ms. */
    readonly sinceMs: number;
    /** Why, once it has been tried to let it go. */
    readonly why?: string;
  };
}

/** Output of a process that waits, or may go on. */
export interface WaitingOutput extends HeldOutput {
  readonly app: string;
  readonly process: string;
  /** Longest wait that is not told of, ms. */
  readonly limitMs: number;
  /** `run --inside` says that the other end is of the application. */
  readonly inside: boolean;
}

/** A process the collector knows. */
export interface CollectedProcess {
  readonly app: string;
  readonly process: string;
  readonly cgroupId: number;
  /** True while it is recorded by the kernel. */
  readonly live: boolean;
  /** True while its runtime hands over what it did, in memory rings; then it has no cgroup of ours. */
  readonly rings: boolean;
  readonly incarnation: number;
  /** Reasons of uncaptured, untrusted communication since it was registered. */
  readonly uncaptured: readonly string[];
  /** The socket behind `shared-socket`. */
  readonly shared?: SharedSocket;
  /** Peers to be told of; absent: none. */
  readonly peers?: readonly PeerNote[];
  /** What is behind the reasons that looks at it found. */
  readonly unseen?: readonly UnseenChannel[];
  /** Processes that it talks with through a pipe, and goes back together with; absent: none. */
  readonly tied?: readonly string[];
  /** True if its connections were ended by a failure, whoever heard of its exit status. */
  readonly failed: boolean;
  readonly task?: TaskName;
  readonly end?: ProcessEnd;
  /** Tasks of this life that went on in another cgroup: where nothing of them is recorded. */
  readonly left: readonly TaskName[];
  /** Directory trees that are part of its state; absent: none. */
  readonly data?: ProcessData;
  /** Who was started with the same `run --group`; absent: none. */
  readonly group?: string;
  /** A container of that name which is made anew is its next life; absent: none is. */
  readonly follows?: string;
  /** Its output to outside waits for the line; absent: it does not. */
  readonly hold?: HoldInfo;
  /** Lines that are not undone, count. */
  readonly lines: number;
  /** Checkpoints in effect that can be named, count, and the newest one's index; 0 = none. */
  readonly checkpoints: number;
  readonly newestCheckpoint: number;
}

/** A log that could not be opened when the collector started, and was passed over. */
export interface UnreadableLog {
  readonly app: string;
  readonly code: string;
  readonly message: string;
}

export interface AppStats {
  readonly app: string;
  /** Records in its log, and the bytes of their ranges. */
  readonly events: number;
  readonly bytes: number;
  readonly commits: number;
  readonly commitMs: number;
  /** Memory of events on their way and of channel names, about. */
  readonly bufferBytes: number;
  readonly liveProcesses: number;
}

/** Counters since the start of this collector, for metrics; arrays are indexed by `RingKind`. */
export interface CollectorStats {
  /** Records that are in a log and acknowledged. */
  readonly events: readonly number[];
  /** Bytes of the ranges of those records, by kind. */
  readonly bytes: readonly number[];
  /** Records that found no room since the programs were loaded; others tell what they would have told. */
  readonly lost: readonly number[];
  /** Losses declared as gaps in the logs, count of records. */
  readonly lostDeclared: number;
  /** Gap events written. */
  readonly gaps: number;
  readonly recursionMisses: number;
  /** What the recorded processes did by userfaultfd; undefined: nobody asked to look. */
  readonly userfaults: UserfaultCounts | undefined;
  /** Records of cgroups nobody registered; records at or before a log's stored position; records of a life that is over. */
  readonly unknown: number;
  readonly skipped: number;
  readonly stale: number;
  /** Records that broke the layout, and slots of a foreign length. */
  readonly bad: number;
  readonly ringBytes: number;
  /** Bytes held by the ring: not yet committed. */
  readonly ringFillBytes: number;
  /** Age of the oldest record of the last commit when that commit returned, in ms. */
  readonly lagMs: number;
  readonly commits: number;
  /** Column batches handed to the logs. */
  readonly batches: number;
  readonly logErrors: number;
  readonly liveProcesses: number;
  /** Applications whose log cannot be written now, and why; the ring holds their records. */
  readonly brokenApps: readonly { readonly app: string; readonly code: string; readonly message: string }[];
  /** Those among them whose records the ring holds no longer: they are counted, and will stand in the log as gaps. */
  readonly givenUpApps: number;
  /** Records of such logs, count, gaps told in them included. */
  readonly missed: number;
  /** What each application costs whose log is open; count and time since it was opened. */
  readonly apps: readonly AppStats[];
  /** Logs that were passed over at the start and were not opened since. */
  readonly unreadableLogs: readonly UnreadableLog[];
}

/** One connection with the names of its two directions; what a restart driver needs of it. */
export interface CutDetail extends CutEntry {
  readonly sends: string;
  readonly receives: string;
}

export interface Pruned {
  /** Of removed blocks. */
  readonly bytes: number;
  /** Why nothing could go. */
  readonly reason?: string;
}

/** One cut vector, read from the kernel. */
export interface CutAnswer {
  /** What a checkpoint event carries. */
  readonly cut: Cut;
  readonly details: readonly CutDetail[];
  /** False: it holds a connection without a name; the cut must not be used. */
  readonly complete: boolean;
  /** Reasons of communication that no cut covers; not empty: the checkpoint must carry no cut (`Collector.append` sees to it). */
  readonly uncaptured: readonly string[];
}
