/** What a collector is told and what it tells. */
import type { UnseenChannel } from "../model/unseen-channel.ts";
import type { CutEntry, EventSource, UserfaultCounts } from "../ring/event-source.ts";
import type { OpenLog } from "./append-log.ts";
import type { StoredPeerRules } from "./peer-rules.ts";
import type { PeerNote, SharedSocket } from "./process-state.ts";

export interface CollectorOptions {
  /** Log directory; made with mode 0700. */
  readonly home: string;
  /** Directory on a bpffs, e.g. /sys/fs/bpf/recovery-line. */
  readonly pinDir: string;
  /** Size of the kernel ring in bytes, a power of two; used only when it is created. */
  readonly ringBytes: number;
  /** Depth of the process cgroups below the cgroup2 root (root = 0). */
  readonly cgroupLevel: number;
  /** True: also page faults that processes handle by userfaultfd (`KernelSourceOptions`). */
  readonly userfaults?: boolean;
  /** Parts of the capture that are forced (`KernelSourceOptions`). */
  readonly variant?: string;
  /** Socket of the attach helper that holds the capture (`KernelSourceOptions`). */
  readonly helper?: number;
  /** Longest time from reading a record to its group commit, in ms. Default 50. */
  readonly commitIntervalMs?: number;
  /** Called once, with the reason, when collection cannot go on (a damaged ring, a bug). Everything then rejects with it. */
  readonly onFatal?: (error: unknown) => void;
  /** Something that goes on by itself but should be seen; one sentence. */
  readonly onTrouble?: (sentence: string) => void;
  /** True if processes of the application are there now; absent: they are taken to be. */
  readonly runs?: (app: string) => boolean;
  /** Is anything in the cgroup of a process? Absent: as long as it is registered. */
  readonly populated?: IsPopulated;
  /** What happens where a log can't be written and the ring fills up. Default `taint`. */
  readonly onFull?: OnFull;
  /** Stands in every log; absent: nothing is said of nodes. */
  readonly node?: NodeNames;
}

/** The node that collects, and all nodes that its applications run on. */
export interface NodeNames {
  readonly name: string;
  readonly all: readonly string[];
}

/**
 * `taint`: logs that can be written go on, what the others miss is counted and stands in them as a gap once they are back.
 * `halt`: collection ends with RL_LOG_WRITE while the ring still holds everything. `stop`: as `taint`, and whoever started the
 * collector holds the recorded processes still while the ring is nearly full (daemon/back-pressure.ts).
 */
export type OnFull = "taint" | "stop" | "halt";

/** A log that could not be opened when the collector started, and was passed over. */
export interface UnreadableLog {
  readonly app: string;
  readonly code: string;
  readonly message: string;
}

/** For tests and other rings: where records come from and where they go. */
export interface CollectorParts {
  readonly source: EventSource;
  readonly openLog: OpenLog;
  readonly home: string;
  readonly commitIntervalMs?: number;
  readonly onFatal?: (error: unknown) => void;
  readonly onTrouble?: (sentence: string) => void;
  readonly runs?: (app: string) => boolean;
  readonly populated?: IsPopulated;
  readonly onFull?: OnFull;
  readonly node?: NodeNames;
}

export type IsPopulated = (process: {
  readonly app: string;
  readonly process: string;
  readonly cgroupId: number;
}) => boolean;

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
  /** The command's first task; absent: it is restored from an image, and nobody waits for it. */
  readonly task?: TaskName;
  /** It is restored from an image: what the image says of its past. Absent: it has none. */
  readonly past?: RestoredPast;
}

/** One task of the system: its number is used again, both together are not. */
export interface TaskName {
  readonly pid: number;
  /** When it began, in ticks since boot. */
  readonly startTicks: number;
}

/** How a command ended: it called exit, or a signal ended it. */
export type ProcessEnd = { readonly code: number } | { readonly signal: number };

/** A command as `run` was given it. */
export interface StartRecipe {
  readonly command: readonly string[];
  readonly cwd: string;
  readonly env: Readonly<Record<string, string>>;
  /** File that its output is appended to, and how long that was before; absent: its output goes nowhere when it starts again. */
  readonly output?: {
    readonly path: string;
    readonly sizeBytes: number;
    readonly inode: number;
    readonly device: number;
  };
  /** True: it may use io_uring, which no image holds. */
  readonly allowIoUring?: boolean;
  /** True: it has System V segments, semaphores and queues of its own. */
  readonly ownIpc?: boolean;
  /** When it can take connections (`run --ready`); absent: nobody waits for it. */
  readonly ready?: string;
  /** Options of CRIU for its images. */
  readonly criuOptions?: readonly string[];
}

/** Directory trees that are saved with a process's checkpoints and put back with them. */
export interface ProcessData {
  /** Absolute, without symbolic links in them; none: the process has no data. */
  readonly roots: readonly string[];
  /** Copied while the process stands still, at most; bytes. */
  readonly limitBytes: number;
  /** What they held before its first instruction; absent: nobody saved it. */
  readonly start?: {
    /** Name of the folder beside the process's images. */
    readonly folder: string;
    /** What each save told, in the order of `roots`. */
    readonly sha256: readonly string[];
  };
}

export interface RestoredPast {
  /** Connections of the image's cut: the restore makes them again. */
  readonly connections: readonly CutEntry[];
  /** Reasons of communication that the image's cut did not cover: they stay with the process. */
  readonly uncaptured: readonly string[];
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
  /** Lines that are not undone, count. */
  readonly lines: number;
  /** Checkpoints in effect that can be named, count, and the newest one's index; 0 = none. */
  readonly checkpoints: number;
  readonly newestCheckpoint: number;
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
