/**
 * Events as interchange.md defines them: what one process did, in its program order.
 *
 * Invariants that hold for every `Event` behind a gateway (`src/format/interchange.ts` for JSON Lines,
 * `src/format/block.ts` for log blocks): names are non-empty and within limits, offsets are integers with
 * 0 ≤ begin ≤ end ≤ MAX_OFFSET, checkpoint indices are integers ≥ 1. Nothing after the gateway doubts them.
 */

/** Offsets per channel at one instant, read while the process was frozen. A channel not named stands at 0. */
export interface Cut {
  readonly sent: ReadonlyMap<string, number>;
  readonly received: ReadonlyMap<string, number>;
  /** How far it has looked (`peek`), ≥ received; a channel not named here: as far as it has received. */
  readonly seen?: ReadonlyMap<string, number>;
  /** Of the channels named above, those that are outside (`OutsideEvent`): written by the log for readers that skip the events, no field of interchange.md. */
  readonly outside?: ReadonlySet<string>;
}

interface Common {
  readonly process: string;
  /** Nanoseconds, any epoch. For pictures only: no decision rests on a clock. */
  readonly time?: number;
  readonly node?: string;
}

interface Range {
  readonly channel: string;
  /** First offset of the half-open range [begin, end): bytes or whole messages. */
  readonly begin: number;
  readonly end: number;
}

export type PageName = string | number;
export type PageRole = "source" | "destination";

/** What a DSM runtime knows of a page beyond what was copied; all optional (interchange.md allows added fields). */
export interface PageVersion {
  readonly page?: PageName;
  /** Rises with each change of ownership, ≥ 0; 0 = nobody has written the page. */
  readonly version?: number;
  /** Process that wrote this version last … */
  readonly writer?: string;
  /** … in this checkpoint interval of its own, ≥ 1: the one that checkpoint `interval` ends. */
  readonly interval?: number;
  /** Ownership comes with it: the destination writes version + 1. Of messages, only those that have it say anything of a page. */
  readonly owner?: true;
}

export interface SendEvent extends Common, Range, PageVersion {
  readonly type: "send";
}
export interface ReceiveEvent extends Common, Range, PageVersion {
  readonly type: "receive";
}
export interface PageFaultEvent extends Common {
  readonly type: "page-fault";
  readonly page: PageName;
  readonly access: "read" | "write";
}
export interface PageCopyEvent extends Common, Range, PageVersion {
  readonly type: "page-copy";
  readonly page: PageName;
  readonly role: PageRole;
}
export interface PageInvalidateEvent extends Common, Range, PageVersion {
  readonly type: "page-invalidate";
  readonly page: PageName;
  readonly role: PageRole;
}
export interface CheckpointEvent extends Common {
  readonly type: "checkpoint";
  /** Index, ≥ 1, rising along the process's effective (not undone) history. */
  readonly checkpoint: number;
  /** False: its image can't be restored. */
  readonly usable: boolean;
  readonly image?: string;
  readonly cut?: Cut;
}
export interface StableEvent extends Common {
  readonly type: "stable";
}
export interface GapEvent extends Common {
  readonly type: "gap";
  /** How many events are known to be missing; absent when nobody knows. */
  readonly lost?: number;
  /** Why, in a word: udp, mptcp, ktls, shared-socket, left, … */
  readonly reason?: string;
}
/** Looked at and left there (MSG_PEEK): remembered like a receive, in transit as before. */
export interface PeekEvent extends Common, Range {
  readonly type: "peek";
}
/** The other end of the channel is no part of the application and never goes back. Holds for the whole channel, wherever it stands. */
export interface OutsideEvent extends Common {
  readonly type: "outside";
  readonly channel: string;
}
export interface RollbackEvent extends Common {
  readonly type: "rollback";
  /** Restarted from this checkpoint; 0 = initial state. */
  readonly checkpoint: number;
}

export type Event =
  | SendEvent
  | ReceiveEvent
  | PageFaultEvent
  | PageCopyEvent
  | PageInvalidateEvent
  | CheckpointEvent
  | StableEvent
  | GapEvent
  | RollbackEvent
  | PeekEvent
  | OutsideEvent;

export type EventType = Event["type"];

/** An event whose page fields may be asked for whatever its type: they are there where they mean something. */
export type DsmEvent = Event & PageVersion;
