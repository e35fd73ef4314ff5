/**
 * What takes a process's state and brings it back. `driver-criu.ts`, `driver-podman.ts`, `driver-docker.ts`, `driver-hook.ts` and `driver-none.ts` are the drivers;
 * `driver-choice.ts` finds one. A driver knows nothing of logs, cuts or lines; it writes files into one folder and reads them back.
 */

import type { Writable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { RecoveryLineError } from "../model/errors.ts";
import { MOMENT_PAUSE_MS, MOMENT_TRIES } from "../model/limits.ts";

export interface DumpRequest {
  /** Empty folder for the image's files. */
  readonly folder: string;
  /** Root of the process tree, and all processes of it. */
  readonly rootPid: number;
  readonly pids: readonly number[];
  /** The frozen cgroup that holds the tree. It is frozen again (or still) on return. */
  readonly cgroupPath: string;
  /** Longest time for the dump, in ms. */
  readonly limitMs: number;
  /** Below these folders files are saved and put back with the image: what the process has mapped or written there is no loss. */
  readonly dataRoots?: readonly string[];
  /** The driver's own options that the process was started with. */
  readonly options?: readonly string[];
  /** Whatever the driver starts holds this pipe, so that nobody thaws the process below it (freeze.ts). */
  readonly guard: Writable;
}

/** For a driver that makes the process stand still itself. */
export type HoldRequest = Pick<
  DumpRequest,
  "folder" | "rootPid" | "pids" | "cgroupPath" | "limitMs" | "dataRoots"
>;

/** What a driver must know again to restore: JSON values, stored in the manifest. */
export type DriverNotes = Readonly<Record<string, unknown>>;

export interface RestoreRequest {
  /** Folder of the image's files; not written to. */
  readonly folder: string;
  /** What `dump` returned. */
  readonly notes: DriverNotes;
  /** Longest time for the restore, in ms. */
  readonly limitMs: number;
  /** True: the restored root becomes a child of the calling process; else of init. */
  readonly sibling?: boolean;
  /** True: files that the process has appended to since the checkpoint are cut back first; else they make the restore fail. */
  readonly rollBackFiles?: boolean;
  /** Below these folders all is as it was at the checkpoint already. */
  readonly dataRoots?: readonly string[];
  /** Cgroup of the tree: it is frozen before the first instruction of the program and stands still on return. Absent: it runs. */
  readonly freezeCgroup?: string;
  /** What `nft` is told in a network that comes back with the process: nothing is heard or said there until somebody takes it away. */
  readonly silence?: string;
  /** Pipes that it shares with other processes that are restored, by their inode in the image: a descriptor of the new one each. */
  readonly pipes?: ReadonlyMap<number, number>;
  /** Descriptor that whatever the driver starts holds until it has ended (not what it brings back): nobody else acts below it. */
  readonly guard?: number;
}

export interface DriverCheck {
  readonly works: boolean;
  /** One sentence. */
  readonly reason: string;
}

export interface CheckpointDriver {
  /** "criu", "podman", "docker", "hook", "none". */
  readonly name: string;
  readonly version: string;
  /** False: it stores nothing that could be restored. */
  readonly images: boolean;
  /** False: connections are not in its images; the process must have none open, and there is nothing in them to be edited. */
  readonly holdsConnections: boolean;
  /** Does it work on this machine, with these rights? Never throws. Absent: there is nothing to try. */
  check?(): Promise<DriverCheck>;
  /** False: no pipe that a process shares with another one is in its images. */
  readonly holdsPipes: boolean;
  /** What can be seen of a running process that no image of it could hold. Throws RL_DRIVER, RL_REFUSED. */
  look(request: Pick<DumpRequest, "pids" | "dataRoots" | "options">): void;
  /**
   * Absent: whoever wants an image freezes the cgroup. Else the process stands still on return, by the driver; `dump` goes on from there, and
   * leaves it standing still in its frozen cgroup. Throws RL_DRIVER, RL_TIMEOUT; then it runs.
   */
  hold?(request: HoldRequest): Promise<void>;
  /** Whom `hold` holds for this folder goes on; nothing where the image is written already, or nobody is held. */
  letGo?(folder: string): Promise<void>;
  /** Writes the image; the process goes on afterwards. Throws RL_DRIVER, RL_TIMEOUT. */
  dump(request: DumpRequest): Promise<DriverNotes>;
  /** What else than CRIU's parts stands in the way of an image, a sentence each; `gone`: tasks that are dead before it comes back. */
  obstacles?(notes: DriverNotes, gone: ReadonlySet<number>): string[];
  /** What is left of the dead process goes, where an image brings all of it back. Throws RL_DRIVER. */
  clear?(notes: DriverNotes): Promise<void>;
  /** Brings the tree back with its old pids. Returns the root's pid. Throws RL_DRIVER, RL_TIMEOUT, RL_REFUSED, RL_NOT_SUPPORTED. */
  restore(request: RestoreRequest): Promise<number>;
}

/** RL_DRIVER for a moment at which there can be no image; another may do. */
export class NotNow extends RecoveryLineError {
  /** How long other moments are worth a try at least, in ms. */
  readonly worthMs: number;

  constructor(message: string, worthMs = 0) {
    super("RL_DRIVER", message, "The image was thrown away; nothing was recorded.");
    this.worthMs = worthMs;
  }
}

/** Tries other moments, MOMENT_TRIES of them, and more where that is worth it; `work` is told how many it tried before. */
export async function atSomeMoment<T>(work: (tried: number) => Promise<T>): Promise<T> {
  const fromMs = performance.now();
  for (let tried = 0; ; tried += 1) {
    try {
      return await work(tried);
    } catch (error) {
      if (!(error instanceof NotNow)) throw error;
      if (tried >= MOMENT_TRIES && performance.now() - fromMs >= error.worthMs) throw error;
      await sleep(MOMENT_PAUSE_MS * Math.random());
    }
  }
}
