/** What an application's log remembers of a process beside its events, and how it is started again. */
import type { UnseenChannel } from "./unseen-channel.ts";

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
  /** It is a rank of Open MPI, or mpirun itself, of the job whose mpirun is this process (`run --ranks`). */
  readonly mpiJob?: string;
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

/** A connection's end that two processes used. */
export interface SharedSocket {
  /** The other process, "app/process" where it is another application's; undefined: it is not recorded any more. */
  readonly other?: string;
  /** What that end sends on. */
  readonly channel: string;
}

/** Somebody at the other end of its connections that people should know of. */
export interface PeerNote {
  /**
   * `foreign`: a process of another application, which is outside. `doubted`: nobody was found there, so it counts as of the application.
   * `relay`: whoever is there, on another machine, exchanges data with another process, too.
   * `contradicted`: a rule says of it the opposite of what was found. `datagrams`: a process that it has exchanged such with.
   * `unheld`: its output is held, and this goes out all the same. `stuck`: the same, and this never will.
   */
  readonly what: "foreign" | "doubted" | "relay" | "contradicted" | "datagrams" | "unheld" | "stuck";
  /** "app/process", a process, an address, or an address and port. */
  readonly peer: string;
  /** The rule that is contradicted; which datagrams; why it is in doubt. */
  readonly rule?: string;
  /** Who was found there instead of what the rule says: "app/process", a process of this application, or a program that nobody records. */
  readonly found?: { readonly is: "recorded" | "foreign" | "stranger"; readonly who: string };
}

/** The stored form: plain values for msgpackr. */
export interface StoredProcess {
  readonly cgroupId: number;
  /** True while it is recorded. */
  readonly live: boolean;
  readonly incarnation: number;
  /** Reasons of uncaptured communication that the user vouches for. */
  readonly trust: readonly string[];
  /** Reasons seen and not vouched for: its checkpoints carry no cut. */
  readonly uncaptured: readonly string[];
  /** The socket behind `shared-socket`. Absent: none, or a log of an older version. */
  readonly shared?: SharedSocket;
  /** Absent: none. */
  readonly peers?: readonly PeerNote[];
  /** What is behind the reasons of model/unseen-channel.ts. Absent: nothing, or a log of an older version. */
  readonly unseen?: readonly UnseenChannel[];
  /** With whom it goes back together; absent: nobody. */
  readonly ties?: readonly StoredTie[];
  /** This life ended, and not with exit code 0; absent: it lives, it ended with 0, or nobody knows. */
  readonly failed?: boolean;
  /** The command's first task; absent: it was restored, or nobody said. */
  readonly task?: TaskName;
  /** How that ended; absent: it did not, or nobody heard. */
  readonly end?: ProcessEnd;
  /** Tasks that went on in another cgroup. */
  readonly left?: readonly TaskName[];
  /** Its output to outside waits for the line; longest wait that is not told of, ms. Absent: it does not. */
  readonly holdLimitMs?: number;
  /** It ran before it was recorded. Absent: it did not. */
  readonly attached?: AttachedPlace;
  readonly lines: number;
  readonly lastCheckpoint: number;
}

/** Two that talk through a pipe (collect/ties.ts). Each of the two has one. */
export interface StoredTie {
  readonly other: string;
  /** Units that have passed in each direction of the tie, count: as many as moments from which on the two had to go back together. */
  readonly moments: number;
  /** They are tied now: their lives, this one's first. Absent: the pipe was not there at the last look. */
  readonly lives?: readonly [number, number];
}

/** Where the cgroup of an attached process lies. */
export interface AttachedPlace {
  /** Id of its application's cgroup; 0: it lies in that. */
  readonly parent: number;
}

/** Where it came from, and what else than its memory its state is; changes when it is registered or told. */
export interface StoredOrigin {
  readonly start?: StartRecipe;
  readonly data?: ProcessData;
  /** `run --group`. */
  readonly group?: string;
  /** A container of that name which is made anew is its next life (`attach --follow`). */
  readonly follows?: string;
}

/** [checkpoint index, position] of the effective history, oldest first. */
export type StoredCheckpoints = readonly (readonly [number, number])[];

export type Side = "outside" | "inside";

/** As they were given, "10.0.0.0/8:5432"; plain values for msgpackr. */
export type StoredPeerRules = Readonly<Record<Side, readonly string[]>>;
