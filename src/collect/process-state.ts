/**
 * What the collector must remember of one process across restarts; it lives in the application's log.
 *
 * Invariants: `lines` counts the process's lines that are not undone (docs/semantics.md, 1); `checkpoints` holds
 * those of its effective history, indices and positions both rising; `lastCheckpoint` never falls.
 */
import { RecoveryLineError } from "../model/errors.ts";
import type { Event } from "../model/event.ts";
import type { EventSource } from "../model/event-source.ts";
import { MAX_KNOWN_CHECKPOINTS, MAX_PEERS_TOLD } from "../model/limits.ts";
import type {
  AttachedPlace,
  PeerNote,
  ProcessEnd,
  SharedSocket,
  StoredCheckpoints,
  StoredOrigin,
  StoredProcess,
  StoredTie,
  TaskName,
} from "../model/stored-process.ts";
import type { UnseenChannel } from "../model/unseen-channel.ts";

const NEW: StoredProcess = {
  cgroupId: 0,
  live: false,
  incarnation: 0,
  trust: [],
  uncaptured: [],
  lines: 0,
  lastCheckpoint: 0,
};

export class ProcessState {
  cgroupId: number;
  live: boolean;
  incarnation: number;
  trust: ReadonlySet<string>;
  readonly uncaptured: Set<string>;
  shared: SharedSocket | undefined;
  /** Peers to be told of, each once. */
  #peers: readonly PeerNote[];
  unseen: readonly UnseenChannel[];
  /** With whom it goes back together (ties.ts). */
  ties: readonly StoredTie[];
  /** This life ended, and not with exit code 0. */
  failed: boolean;
  /** Exit status of its command, where somebody waited for it; not stored. */
  exitStatus: number | undefined;
  task: TaskName | undefined;
  end: ProcessEnd | undefined;
  left: readonly TaskName[];
  /** Its output to outside waits for the line; longest wait that is not told of, ms; 0: it goes. */
  holdLimitMs: number;
  /** It ran before it was recorded. */
  attached: AttachedPlace | undefined;
  lines: number;
  /** Greatest index ever handed out or logged, undone ones included. */
  lastCheckpoint: number;
  /** The index that was handed out last, by this collector, while nothing is logged by it. */
  unusedCheckpoint: number | undefined;
  /** Something above or in `checkpoints` changed since the last commit. */
  changed = false;
  checkpointsChanged = false;
  originChanged = false;
  #origin: StoredOrigin;
  #checkpoints: (readonly [number, number])[];

  constructor(stored: StoredProcess = NEW, checkpoints: StoredCheckpoints = [], origin: StoredOrigin = {}) {
    this.#origin = origin;
    this.cgroupId = stored.cgroupId;
    this.live = stored.live;
    this.incarnation = stored.incarnation;
    this.trust = new Set(stored.trust);
    this.uncaptured = new Set(stored.uncaptured);
    this.shared = stored.shared;
    this.#peers = stored.peers ?? [];
    this.unseen = stored.unseen ?? [];
    this.ties = stored.ties ?? [];
    this.failed = stored.failed ?? false;
    this.task = stored.task;
    this.end = stored.end;
    this.left = stored.left ?? [];
    this.holdLimitMs = stored.holdLimitMs ?? 0;
    this.attached = stored.attached;
    this.lines = stored.lines;
    this.lastCheckpoint = stored.lastCheckpoint;
    this.#checkpoints = [...checkpoints];
  }

  stored(): StoredProcess {
    const { cgroupId, live, incarnation, lines, lastCheckpoint } = this;
    const [trust, uncaptured] = [[...this.trust], [...this.uncaptured]];
    return {
      cgroupId,
      live,
      incarnation,
      trust,
      uncaptured,
      ...(this.shared === undefined ? {} : { shared: this.shared }),
      ...(this.#peers.length === 0 ? {} : { peers: this.#peers }),
      ...(this.unseen.length === 0 ? {} : { unseen: this.unseen }),
      ...(this.ties.length === 0 ? {} : { ties: this.ties }),
      ...(this.failed ? { failed: true } : {}),
      ...(this.task === undefined ? {} : { task: this.task }),
      ...(this.end === undefined ? {} : { end: this.end }),
      ...(this.left.length === 0 ? {} : { left: this.left }),
      ...(this.holdLimitMs === 0 ? {} : { holdLimitMs: this.holdLimitMs }),
      ...(this.attached === undefined ? {} : { attached: this.attached }),
      lines,
      lastCheckpoint,
    };
  }

  /** Its endings are the failure itself. Where nobody waited for it, only what its dying tasks said counts. */
  get endedByFailure(): boolean {
    return this.exitStatus === undefined ? this.failed : this.exitStatus !== 0;
  }

  get peers(): readonly PeerNote[] {
    return this.#peers;
  }

  set peers(peers: readonly PeerNote[]) {
    this.#peers = peers;
    this.changed = true;
  }

  /** A peer that people should know of; up to MAX_PEERS_TOLD of a kind. */
  meet(note: PeerNote): void {
    const alike = this.#peers.filter(({ what }) => what === note.what);
    if (alike.length >= MAX_PEERS_TOLD || alike.some(({ peer }) => peer === note.peer)) return;
    this.peers = [...this.#peers, note];
  }

  get origin(): StoredOrigin {
    return this.#origin;
  }

  set origin(origin: StoredOrigin) {
    this.#origin = origin;
    this.originChanged = true;
  }

  storedCheckpoints(): StoredCheckpoints {
    return this.#checkpoints;
  }

  /**
   * Counts one event of the reliable path and returns its position.
   * Throws RL_CONTRADICTION for a checkpoint index that does not rise or a rollback to a checkpoint that is not there.
   */
  apply(event: Event): number {
    this.check(event);
    if (event.type === "rollback") return this.#rollback(event.checkpoint);
    if (event.type === "checkpoint") this.#checkpoint(event.checkpoint);
    this.lines += 1;
    this.changed = true;
    return this.lines;
  }

  /** Throws what `apply` would. */
  check(event: Event): void {
    const newest = this.#checkpoints.at(-1)?.[0] ?? 0;
    if (event.type === "checkpoint" && event.checkpoint <= newest)
      throw contradiction(
        `checkpoint ${event.checkpoint} does not exceed ${newest}, the newest one in effect`,
      );
    if (
      event.type === "rollback" &&
      event.checkpoint !== 0 &&
      this.#upTo(event.checkpoint).at(-1)?.[0] !== event.checkpoint
    )
      throw contradiction(`there is no checkpoint ${event.checkpoint} to go back to`);
  }

  #upTo(index: number): (readonly [number, number])[] {
    return this.#checkpoints.filter(([known]) => known <= index);
  }

  #checkpoint(index: number): void {
    this.#checkpoints.push([index, this.lines + 1]);
    if (this.#checkpoints.length > MAX_KNOWN_CHECKPOINTS) this.#checkpoints.shift();
    this.lastCheckpoint = Math.max(this.lastCheckpoint, index);
    this.unusedCheckpoint = undefined;
    this.checkpointsChanged = true;
  }

  /** Everything after the checkpoint is undone; the rollback line itself is the next one (semantics 1 and 2). */
  #rollback(index: number): number {
    const kept = this.#upTo(index);
    const base = kept.at(-1);
    this.#checkpoints = kept;
    this.checkpointsChanged = true;
    this.changed = true;
    this.lines = (base?.[1] ?? 0) + 1;
    return this.lines;
  }
}

function contradiction(message: string): RecoveryLineError {
  return new RecoveryLineError("RL_CONTRADICTION", message, "Take indices from nextCheckpoint.");
}

/** Without what nobody said. */
export function originOf(origin: { [K in keyof StoredOrigin]: StoredOrigin[K] | undefined }): StoredOrigin {
  const { start, data, group, follows } = origin;
  return {
    ...(start === undefined ? {} : { start }),
    ...(data === undefined || data.roots.length === 0 ? {} : { data }),
    ...(group === undefined ? {} : { group }),
    ...(follows === undefined ? {} : { follows }),
  };
}

/** From now on the kernel records what it does. Throws what the source throws. */
export function selectProcess({ cgroupId, incarnation, attached }: ProcessState, source: EventSource): void {
  if (attached === undefined) source.select(cgroupId, true, incarnation);
  else source.attach(cgroupId, incarnation, attached.parent);
}
