/**
 * Output commit: lets go what processes started with `run --hold-output` send to outside, once the line of all covers it.
 *
 *   look      what waits in the kernel, every few milliseconds while anybody holds; what is said to be inside goes at once
 *   round     checkpoints of all of an application whose output waits, with whom they depend on; then the line where all fail, and every
 *             mark is raised to what that line keeps. What comes meanwhile waits for the next round: they are its batches
 *             A policy with a handler for `output` decides about these checkpoints, and the round looks at the line afterwards
 *   limit     what waits longer than the process's limit is told, here and by `status`, with the reason, and stays: it may still become
 *             covered, and what goes uncovered can never be unsaid. TCP itself gives such a connection up in the end
 *
 * The hook in the kernel needs none of this to hold; whatever ends here, the next collector goes on with the marks that are there.
 */
import type { CommitAnswer } from "../client/protocol.ts";
import type { Collector } from "../collect/collect.ts";
import type { HeldOutputs } from "../collect/held-outputs.ts";
import { tcpChannel } from "../model/channel-names.ts";
import type { CollectedProcess, HoldInfo, WaitingOutput } from "../model/collector-answers.ts";
import {
  HOLD_LOOK_MS,
  HOLD_POLL_MS,
  HOLD_RETRY_MS,
  HOLD_TELL_MS,
  MAX_HOLD_RETRY_MS,
} from "../model/limits.ts";
import type { OutputCommitter } from "./output-committer.ts";
import type { Policies } from "./policies.ts";

export interface HoldWatchOptions {
  readonly outputs: Pick<HeldOutputs, "any" | "waiting" | "release" | "noteUnheld" | "note" | "msSince">;
  readonly collector: Pick<Collector, "processes">;
  readonly committer: Pick<OutputCommitter, "ask" | "close">;
  /** Asks the application's policy, where one decides what output waits for. */
  readonly policies: Pick<Policies, "output">;
  readonly onTrouble: (sentence: string) => void;
}

/** When an application's next round may begin, ms of `performance.now()`, and how many let nothing go since one did. */
interface Turn {
  readonly dueMs: number;
  readonly vain: number;
}

export class HoldWatch {
  readonly #options: HoldWatchOptions;
  #timer: NodeJS.Timeout | undefined;
  /** Connections that were seen waiting, by their names: who is new may only have been asked for too early. */
  #seen = new Set<string>();
  /** What waited at the last look, by "app/process". */
  #waits: ReadonlyMap<string, Waits> = new Map();
  readonly #turns = new Map<string, Turn>();
  #round: Promise<void> | undefined;
  #nextLookMs = 0;
  #closed = false;
  /** By "app/process": why its output still waits. */
  readonly #why = new Map<string, string>();
  /** By what it is about, ms of `performance.now()`. */
  readonly #toldMs = new Map<string, number>();

  constructor(options: HoldWatchOptions) {
    this.#options = options;
    this.begin();
  }

  /** Somebody may hold from now on; while nobody does, nobody looks. */
  begin(): void {
    if (this.#closed || !this.#options.outputs.any) return;
    this.#timer ??= setInterval(() => this.#lookSafely(), HOLD_POLL_MS);
  }

  #lookSafely(): void {
    try {
      this.#look();
    } catch (error) {
      this.#tell("kernel", `output that waits can't be looked at: ${(error as Error).message}`);
    }
    if (this.#options.outputs.any || this.#waits.size > 0) return;
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  #look(): void {
    const nowMs = performance.now();
    if (nowMs >= this.#nextLookMs) this.#lookForUnheld(nowMs);
    const waiting = this.#waiting();
    const waits = byProcess(waiting, this.#options.outputs);
    for (const [place, one] of this.#waits) if (!waits.has(place)) this.#waitsNoMore(place, one);
    this.#waits = waits;
    for (const [place, one] of waits) this.#tellOverdue(place, one);
    if (this.#round !== undefined) return;
    const due = waiting.find(({ app }) => nowMs >= (this.#turns.get(app)?.dueMs ?? 0));
    if (due === undefined) return;
    const { app } = due;
    this.#round = this.#commit(app, waiting)
      .catch((error: unknown) => {
        this.#tell(app, `output of ${app} can't be let go: ${(error as Error).message}`);
        this.#turns.set(app, this.#nextTurn(app, false, 0));
      })
      .finally(() => {
        this.#round = undefined;
      });
  }

  /** Without what is inside: said to be, or known since it was held. */
  #waiting(): readonly WaitingOutput[] {
    const { outputs } = this.#options;
    const all = outputs.waiting();
    const inside = all.filter((one) => one.inside);
    const fresh = all.some((one) => !this.#seen.has(nameOf(one)));
    this.#seen = new Set(all.map(nameOf));
    if (inside.length === 0 && !fresh) return all;
    outputs.release(inside.map((one) => ({ ...one, free: true })));
    return outputs.waiting();
  }

  /** Sockets of other cgroups are found by the same walk that has all try to send. */
  #lookForUnheld(nowMs: number): void {
    const { outputs, onTrouble } = this.#options;
    this.#nextLookMs = nowMs + HOLD_LOOK_MS;
    outputs.release([]);
    for (const { app, process, note } of outputs.noteUnheld())
      if (note.what === "stuck") onTrouble(`${process} of ${app} sends by ${note.peer}: that waits for good`);
      else this.#unheld(app, process, note.peer);
  }

  #tellUnheld(
    found: readonly { readonly app: string; readonly process: string; readonly peer: string }[],
  ): void {
    for (const { app, process, peer } of found)
      if (this.#options.outputs.note(app, process, { what: "unheld", peer }))
        this.#unheld(app, process, peer);
  }

  #unheld(app: string, process: string, by: string): void {
    this.#options.onTrouble(`${process} of ${app} sends by ${by}: --hold-output does not hold that`);
  }

  async #commit(app: string, waiting: readonly WaitingOutput[]): Promise<void> {
    const processes = [...new Set(waiting.filter((one) => one.app === app).map((one) => one.process))];
    const beganMs = performance.now();
    const byPolicy = await this.#options.policies.output(app, processes);
    const decidedMs = performance.now() - beganMs;
    const taken = byPolicy ? ({ taken: true } as const) : {};
    const answer = await this.#options.committer.ask({ app, processes, ...taken });
    let went = false;
    try {
      went = this.#raise(app, answer);
    } catch (error) {
      this.#tell(app, `output of ${app} can't be let go: ${(error as Error).message}`);
    }
    this.#tellUnheld(answer.unheld.map(([process, peer]) => ({ app, process, peer })));
    const why =
      answer.why ??
      (byPolicy ? `its policy decides what keeps it: recovery-line policy log ${app}` : undefined);
    for (const process of processes)
      if (why === undefined) this.#why.delete(`${app}/${process}`);
      else this.#why.set(`${app}/${process}`, why);
    this.#turns.set(app, this.#nextTurn(app, went, decidedMs + answer.tookMs));
  }

  /** No more than half of the time is taken for it; a round in vain is no reason to hurry. */
  #nextTurn(app: string, went: boolean, tookMs: number): Turn {
    const nowMs = performance.now();
    if (went) return { dueMs: nowMs + Math.min(tookMs, HOLD_RETRY_MS), vain: 0 };
    const vain = (this.#turns.get(app)?.vain ?? 0) + 1;
    return { dueMs: nowMs + Math.min(HOLD_RETRY_MS * 2 ** (vain - 1), MAX_HOLD_RETRY_MS), vain };
  }

  /** True if a mark rose. */
  #raise(app: string, { committed }: CommitAnswer): boolean {
    const { outputs } = this.#options;
    const covered = new Map(committed);
    const risen = outputs
      .waiting()
      .filter((one) => one.app === app)
      .map((one) => ({ before: one.released, ...one, released: coveredOf(covered, one) }))
      .filter(({ released, before }) => released > before);
    if (risen.length > 0) outputs.release(risen);
    return risen.length > 0;
  }

  #tellOverdue(place: string, { first, sinceMs, bytes, connections }: Waits): void {
    const { app, process, limitMs } = first;
    const tried = this.#why.get(place);
    // The first round may not have come to its end: it knows the reason.
    if (limitMs === 0 || sinceMs < (tried === undefined ? 2 * limitMs : limitMs)) return;
    const why = tried ?? "no checkpoint covers it yet";
    this.#tell(
      place,
      `output of ${process} of ${app} has waited for ${Math.round(sinceMs / 1000)} s, longer than its limit, and stays: ${bytes} bytes on ${connections} connections; ${why}`,
    );
  }

  /** It went, or its process has ended with it. */
  #waitsNoMore(place: string, { first: { app, process }, bytes }: Waits): void {
    this.#why.delete(place);
    this.#toldMs.delete(place);
    const found = this.#options.collector
      .processes()
      .find((one) => one.app === app && one.process === process);
    if (found?.live === false)
      this.#options.onTrouble(
        `${process} of ${app} has ended while ${bytes} bytes of its output waited: no line keeps them, and they never go`,
      );
  }

  /** The same thing not more often than once a minute. */
  #tell(about: string, sentence: string): void {
    const nowMs = performance.now();
    if (nowMs - (this.#toldMs.get(about) ?? Number.NEGATIVE_INFINITY) < HOLD_TELL_MS) return;
    this.#toldMs.set(about, nowMs);
    this.#options.onTrouble(sentence);
  }

  /** With what of each waits now. */
  told(processes: readonly CollectedProcess[]): readonly CollectedProcess[] {
    if (!processes.some(({ hold, live }) => live && hold !== undefined)) return processes;
    const { outputs } = this.#options;
    const waiting = byProcess(outputs.waiting(), outputs);
    return processes.map((one) => {
      const waits = waiting.get(`${one.app}/${one.process}`);
      if (one.hold === undefined || waits === undefined) return one;
      const { first: _, ...counted } = waits;
      const why = this.#why.get(`${one.app}/${one.process}`);
      const hold: HoldInfo = { ...one.hold, waits: { ...counted, ...(why === undefined ? {} : { why }) } };
      return { ...one, hold };
    });
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearInterval(this.#timer);
    await this.#options.committer.close();
    await this.#round;
  }
}

function nameOf({ local, remote }: WaitingOutput): string {
  return `${local} ${remote}`;
}

function coveredOf(covered: ReadonlyMap<string, number>, { local, remote }: WaitingOutput): number {
  return covered.get(tcpChannel(local, remote)) ?? 0;
}

interface Waits {
  readonly first: WaitingOutput;
  readonly connections: number;
  readonly bytes: number;
  readonly sinceMs: number;
}

/** By "app/process". `bytes`: those that have tried to go. */
function byProcess(
  waiting: readonly WaitingOutput[],
  outputs: Pick<HeldOutputs, "msSince">,
): Map<string, Waits> {
  const found = new Map<string, Waits>();
  for (const one of waiting) {
    if (one.inside) continue;
    const place = `${one.app}/${one.process}`;
    const before = found.get(place);
    found.set(place, {
      first: one,
      connections: (before?.connections ?? 0) + 1,
      bytes: (before?.bytes ?? 0) + one.wanted - one.released,
      sinceMs: Math.max(before?.sinceMs ?? 0, outputs.msSince(one.since)),
    });
  }
  return found;
}
