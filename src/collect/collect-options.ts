/** What a collector is told and what it tells. */

import type { Surroundings } from "../host/surroundings.ts";
import type { OpenLog } from "../log/append-log.ts";
import type { NodeNames } from "../model/collector-answers.ts";
import type { EventSource } from "../model/event-source.ts";

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

/**
 * `taint`: logs that can be written go on, what the others miss is counted and stands in them as a gap once they are back.
 * `halt`: collection ends with RL_LOG_WRITE while the ring still holds everything. `stop`: as `taint`, and whoever started the
 * collector holds the recorded processes still while the ring is nearly full (daemon/back-pressure.ts).
 */
export type OnFull = "taint" | "stop" | "halt";

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
  /** Absent: this host's. */
  readonly surroundings?: () => Promise<Surroundings>;
  readonly onFull?: OnFull;
  readonly node?: NodeNames;
}

export type IsPopulated = (process: {
  readonly app: string;
  readonly process: string;
  readonly cgroupId: number;
}) => boolean;
