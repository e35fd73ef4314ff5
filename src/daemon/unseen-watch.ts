/**
 * Looks at what the processes of an application use together though no record tells of it: shared memory, pipes, queues, files.
 *
 * Looked at when somebody asks: `run` before the first instruction, a checkpoint, a restart, answers about what was; and between them soon
 * after a process began, then seldom, and more seldom while nothing of the application runs. What is opened and closed again between two
 * looks is not seen.
 */

import type { ProcessInfo, WireUnseen } from "../client/protocol.ts";
import type { Collector } from "../collect/collect.ts";
import { processorTime } from "../host/cgroups.ts";
import { channelsAmong } from "../host/look-at-things.ts";
import {
  UNSEEN_ANSWER_SHARE,
  UNSEEN_FIRST_LOOK_MS,
  UNSEEN_FRESH_MS,
  UNSEEN_LOOK_MS,
  UNSEEN_LOOK_SHARE,
  UNSEEN_SLEEP_LOOK_MS,
} from "../model/limits.ts";
import type { FoundChannel } from "../model/unseen-channel.ts";

interface Turn {
  /** The lives that were there at the last look. */
  readonly lives: string;
  /** Until then it serves for answers, ms of `performance.now()`. */
  readonly freshToMs: number;
  /** When it is looked again, ms of `performance.now()`, and how long after the last time. */
  readonly atMs: number;
  readonly waitMs: number;
  /** When it was looked, ms of `performance.now()`, and the processor time that the application had used by then. */
  readonly lookedMs: number;
  readonly used: number | undefined;
}

export class UnseenWatch {
  readonly #collector: Pick<Collector, "processes" | "unseen">;
  readonly #turns = new Map<string, Turn>();

  constructor(collector: Pick<Collector, "processes" | "unseen">) {
    this.#collector = collector;
  }

  /** Looks at the applications whose turn it is; those of one process have nobody to share with. */
  async due(): Promise<void> {
    const groups = this.#groups();
    for (const app of this.#turns.keys()) if (!groups.has(app)) this.#turns.delete(app);
    for (const [app, processes] of groups)
      if (processes.length > 1 && this.#isDue(app, processes)) await this.#lookAt(app, processes);
  }

  /** Looks at one application now: what it uses together, also what somebody vouches for; in the log on return where nobody does. */
  look(app: string): Promise<WireUnseen> {
    return this.#lookAt(app, this.#groups().get(app) ?? []);
  }

  /** What somebody else saw, whose rights reach further. */
  take(app: string, found: readonly FoundChannel[]): Promise<void> {
    return this.#collector.unseen(app, found);
  }

  /** For answers about what was: of all applications, or of one. A log that can't be written is told of elsewhere. */
  async beforeAnswer(app?: string): Promise<void> {
    for (const [name, processes] of this.#groups()) {
      if ((app !== undefined && name !== app) || processes.length < 2) continue;
      const last = this.#turns.get(name);
      const fresh = last?.lives === livesOf(processes) && performance.now() < last.freshToMs;
      if (!fresh) await this.#lookAt(name, processes).catch(() => undefined);
    }
  }

  #groups(): Map<string, ProcessInfo[]> {
    const groups = new Map<string, ProcessInfo[]>();
    for (const process of this.#collector.processes()) {
      if (!process.live || process.cgroupId === 0) continue;
      const group = groups.get(process.app);
      if (group === undefined) groups.set(process.app, [process]);
      else group.push(process);
    }
    return groups;
  }

  #isDue(app: string, processes: readonly ProcessInfo[]): boolean {
    const turn = this.#turns.get(app);
    if (turn === undefined || turn.lives !== livesOf(processes)) return true;
    return performance.now() >= turn.atMs && !sleeps(app, turn);
  }

  async #lookAt(app: string, processes: readonly ProcessInfo[]): Promise<WireUnseen> {
    const [lookedMs, used] = [performance.now(), processorTime(app)];
    const looked = await channelsAmong(app, processes);
    this.#next(app, processes, { lookedMs, used });
    const tied = processes.some((one) => one.tied !== undefined);
    if (looked.channels.length > 0 || tied)
      await this.#collector.unseen(app, looked.channels, !looked.hidden);
    return looked;
  }

  /** Twice as late each time, and never so often that looking costs. */
  #next(app: string, processes: readonly ProcessInfo[], look: Pick<Turn, "lookedMs" | "used">): void {
    const tookMs = performance.now() - look.lookedMs;
    const lives = livesOf(processes);
    const last = this.#turns.get(app);
    const doubled = last?.lives === lives ? Math.min(2 * last.waitMs, UNSEEN_LOOK_MS) : UNSEEN_FIRST_LOOK_MS;
    const waitMs = Math.max(doubled, tookMs / UNSEEN_LOOK_SHARE);
    const nowMs = performance.now();
    const freshToMs = nowMs + Math.max(UNSEEN_FRESH_MS, tookMs / UNSEEN_ANSWER_SHARE);
    this.#turns.set(app, { ...look, lives, freshToMs, waitMs: doubled, atMs: nowMs + waitMs });
  }
}

/** Nothing of it has run since. Strangers may have opened what it uses. */
function sleeps(app: string, { used, lookedMs }: Turn): boolean {
  return (
    used !== undefined && performance.now() - lookedMs < UNSEEN_SLEEP_LOOK_MS && processorTime(app) === used
  );
}

function livesOf(processes: readonly ProcessInfo[]): string {
  return processes.map(({ process, incarnation }) => `${process}/${incarnation}`).join(" ");
}
