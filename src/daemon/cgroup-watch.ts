/**
 * The kernel tells when a cgroup becomes empty (a change of `cgroup.events`), so that one that it has told nothing of needs no look.
 * Seldom it is looked at all the same: a queue of changes that is full loses some, and says nothing.
 */
import { type FSWatcher, watch } from "node:fs";
import { join } from "node:path";
import { ProcessCgroup } from "../host/cgroups.ts";
import { CGROUP_LOOK_MS } from "../model/limits.ts";

interface Watched {
  readonly cgroupId: number;
  readonly watcher: FSWatcher | undefined;
  isDue: boolean;
  /** Of the newest look, ms of `performance.now()`. */
  lookedMs: number;
}

export interface WatchedProcess {
  readonly app: string;
  readonly process: string;
  readonly cgroupId: number;
}

export class CgroupWatch {
  /** By "app/process". */
  readonly #watched = new Map<string, Watched>();
  readonly #tell: () => void;

  /** `tell`: something is due. */
  constructor(tell: () => void = () => undefined) {
    this.#tell = tell;
  }

  /** False: of some the kernel does not tell. */
  get tells(): boolean {
    for (const { watcher } of this.#watched.values()) if (watcher === undefined) return false;
    return true;
  }

  /** True: whoever asks has to look now, and what changes from now on is told the next time. */
  isDue(process: WatchedProcess): boolean {
    const watched = this.#of(process);
    const nowMs = performance.now();
    const isDue = watched.isDue || nowMs - watched.lookedMs >= CGROUP_LOOK_MS;
    if (!isDue) return false;
    watched.isDue = watched.watcher === undefined;
    watched.lookedMs = nowMs;
    return true;
  }

  /** All but these are forgotten. */
  retain(processes: readonly WatchedProcess[]): void {
    if (this.#watched.size <= processes.length) return;
    const names = new Set(processes.map(({ app, process }) => `${app}/${process}`));
    for (const [name, { watcher }] of this.#watched) {
      if (names.has(name)) continue;
      watcher?.close();
      this.#watched.delete(name);
    }
  }

  #of(process: WatchedProcess): Watched {
    const { app, process: name, cgroupId } = process;
    const known = this.#watched.get(`${app}/${name}`);
    if (known?.cgroupId === cgroupId) return known;
    known?.watcher?.close();
    const tell = (): void => {
      made.isDue = true;
      this.#tell();
    };
    const made: Watched = { cgroupId, watcher: watcherOf(app, name, tell), isDue: true, lookedMs: 0 };
    this.#watched.set(`${app}/${name}`, made);
    return made;
  }
}

/** Undefined where there is none to be had: the cgroup is gone, or the user has as many as the kernel gives. */
function watcherOf(app: string, process: string, tell: () => void): FSWatcher | undefined {
  try {
    const file = join(new ProcessCgroup(app, process).path, "cgroup.events");
    return watch(file, { persistent: false }, tell).on("error", tell);
  } catch {
    return undefined;
  }
}
