/** What the collector tells of processes: of applications whose logs are open, and, in short, of those whose logs it has closed. */

import type { CollectedProcess } from "../model/collector-answers.ts";
import { MAX_ENDED_PROCESSES } from "../model/limits.ts";
import type { AppLog } from "./app-log.ts";
import type { ProcessState } from "./process-state.ts";

export function collectedProcesses(app: AppLog): CollectedProcess[] {
  return [...app.processes.values()].map(({ name, state }) => ({
    app: app.name,
    process: name,
    cgroupId: state.cgroupId,
    live: state.live,
    rings: app.rings.has(name),
    incarnation: state.incarnation,
    uncaptured: [...state.uncaptured],
    ...(state.shared === undefined ? {} : { shared: state.shared }),
    ...(state.peers.length === 0 ? {} : { peers: state.peers }),
    ...(state.unseen.length === 0 ? {} : { unseen: state.unseen }),
    ...tiedTo(app, state),
    failed: state.failed,
    ...(state.task === undefined ? {} : { task: state.task }),
    ...(state.end === undefined ? {} : { end: state.end }),
    left: state.left,
    ...(state.origin.data === undefined ? {} : { data: state.origin.data }),
    ...(state.origin.group === undefined ? {} : { group: state.origin.group }),
    ...(state.origin.follows === undefined ? {} : { follows: state.origin.follows }),
    ...(state.holdLimitMs === 0 ? {} : { hold: { limitMs: state.holdLimitMs } }),
    lines: state.lines,
    checkpoints: state.storedCheckpoints().length,
    newestCheckpoint: state.storedCheckpoints().at(-1)?.[0] ?? 0,
  }));
}

function tiedTo(app: AppLog, { ties, live, incarnation }: ProcessState): Pick<CollectedProcess, "tied"> {
  const tied = ties
    .filter(({ other, lives }) => {
      const peer = app.processes.get(other)?.state;
      return live && peer?.live === true && lives?.[0] === incarnation && lives[1] === peer.incarnation;
    })
    .map(({ other }) => other);
  return tied.length === 0 ? {} : { tied };
}

/** Processes of closed logs; of more than MAX_ENDED_PROCESSES the applications that were closed first are forgotten. */
export class EndedProcesses {
  readonly #byApp = new Map<string, readonly CollectedProcess[]>();
  #count = 0;

  keep(app: string, processes: readonly CollectedProcess[]): void {
    this.forget(app);
    this.#byApp.set(app, processes);
    this.#count += processes.length;
    for (const [oldest] of this.#byApp) {
      if (this.#count <= MAX_ENDED_PROCESSES) return;
      this.forget(oldest);
    }
  }

  forget(app: string): void {
    this.#count -= this.#byApp.get(app)?.length ?? 0;
    this.#byApp.delete(app);
  }

  all(): readonly CollectedProcess[] {
    return [...this.#byApp.values()].flat();
  }
}
