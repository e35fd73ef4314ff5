/**
 * Looks at what the processes of an application use together though no record tells of it: shared memory, pipes, queues, files.
 *
 * Looked at when a process is registered, while it stands still; when somebody asks for a checkpoint, a restart or an answer; and between
 * them soon after a process began, then seldom. What is opened and closed again between two looks is not seen.
 */
import type { Collector } from "../engine/collect.ts";
import { UNSEEN_FIRST_LOOK_MS, UNSEEN_FRESH_MS, UNSEEN_LOOK_MS, UNSEEN_LOOK_SHARE } from "../model/limits.ts";
import type { UnseenChannel } from "../model/unseen-channel.ts";
import { ProcessCgroup } from "../restart/cgroups.ts";
import { lookAt } from "../restart/look-at-things.ts";
import { unseenChannels } from "../restart/shared-things.ts";
import type { ProcessInfo } from "./protocol.ts";

interface Turn {
  /** The lives that were there at the last look. */
  readonly lives: string;
  readonly lookedAtMs: number;
  /** When it is looked again, ms of `performance.now()`, and how long after the last time. */
  readonly atMs: number;
  readonly waitMs: number;
}

export class UnseenWatch {
  readonly #collector: Pick<Collector, "processes" | "unseen">;
  readonly #onTrouble: (sentence: string) => void;
  readonly #turns = new Map<string, Turn>();
  /** By application the processes of which was said that they can't be looked at. */
  readonly #told = new Map<string, Set<string>>();

  constructor(collector: Pick<Collector, "processes" | "unseen">, onTrouble: (sentence: string) => void) {
    this.#collector = collector;
    this.#onTrouble = onTrouble;
  }

  /** Looks at the applications whose turn it is; those of one process have nobody to share with. */
  async due(): Promise<void> {
    const groups = this.#groups();
    for (const app of this.#turns.keys()) if (!groups.has(app)) this.#forget(app);
    for (const [app, processes] of groups)
      if (processes.length > 1 && this.#isDue(app, processes)) await this.#lookAt(app, processes);
  }

  /** Looks at one application now. What it uses together, also what somebody vouches for; durable on return where it is not. */
  async look(app: string): Promise<UnseenChannel[]> {
    const processes = this.#groups().get(app) ?? [];
    return processes.length > 1 ? this.#lookAt(app, processes) : [];
  }

  /** For answers about what was: of all applications, or of one. A log that can't be written is told of elsewhere. */
  async beforeAnswer(app?: string): Promise<void> {
    for (const [name, processes] of this.#groups()) {
      if ((app !== undefined && name !== app) || processes.length < 2) continue;
      const last = this.#turns.get(name);
      const fresh =
        last?.lives === livesOf(processes) && performance.now() - last.lookedAtMs < UNSEEN_FRESH_MS;
      if (!fresh) await this.#lookAt(name, processes).catch(() => undefined);
    }
  }

  #forget(app: string): void {
    this.#turns.delete(app);
    this.#told.delete(app);
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
    return turn === undefined || turn.lives !== livesOf(processes) || performance.now() >= turn.atMs;
  }

  async #lookAt(app: string, processes: readonly ProcessInfo[]): Promise<UnseenChannel[]> {
    const began = performance.now();
    const { holders, hidden } = lookAt(
      processes.map(({ process }) => ({ process, pids: new ProcessCgroup(app, process).pids() })),
    );
    const channels = unseenChannels(holders);
    this.#next(app, processes, performance.now() - began);
    const incarnations = new Map(processes.map(({ process, incarnation }) => [process, incarnation]));
    for (const { process, pid } of hidden) this.#sayHidden(app, process, pid);
    if (channels.length > 0)
      await this.#collector.unseen(
        app,
        channels.map((one) => ({ ...one, incarnation: incarnations.get(one.process)! })),
      );
    return channels;
  }

  /** Twice as late each time, and never so often that looking costs. */
  #next(app: string, processes: readonly ProcessInfo[], tookMs: number): void {
    const lives = livesOf(processes);
    const last = this.#turns.get(app);
    const doubled = last?.lives === lives ? Math.min(2 * last.waitMs, UNSEEN_LOOK_MS) : UNSEEN_FIRST_LOOK_MS;
    const waitMs = Math.max(doubled, tookMs / UNSEEN_LOOK_SHARE);
    const lookedAtMs = performance.now();
    this.#turns.set(app, { lives, lookedAtMs, waitMs: doubled, atMs: lookedAtMs + waitMs });
  }

  #sayHidden(app: string, process: string, pid: number): void {
    const told = this.#told.get(app) ?? new Set();
    this.#told.set(app, told);
    if (told.has(process)) return;
    told.add(process);
    this.#onTrouble(
      `process ${pid} (${process} of ${app}) is another user's: what it shares with other recorded processes is not seen; collect as root to see it`,
    );
  }
}

function livesOf(processes: readonly ProcessInfo[]): string {
  return processes.map(({ process, incarnation }) => `${process}/${incarnation}`).join(" ");
}
