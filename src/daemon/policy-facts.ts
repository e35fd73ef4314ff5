/**
 * The facts of one application, as its policy sees them: measured when something is looked at anyway, read in one pass a beat. Times are ms of a
 * clock that only goes forward; over a restart of the collector the wall clock carries them.
 */

import type { ProcessInfo } from "../client/protocol.ts";
import type { ProcessCounts } from "../collect/process-buffer.ts";
import { MAX_CHECKPOINT_TIMES } from "../model/limits.ts";
import type { FactRow } from "../policy/host.ts";
import type { FactName } from "../policy/vocabulary.ts";
import type { FailureFacts, LineFacts } from "./line-facts.ts";
import type { StoredClock } from "./policy-record.ts";

/** What is the same for all applications. */
export interface NodeFacts {
  /** Free space where images are stored, and memory that can be given to programs; bytes. */
  readonly free: number;
  readonly memory: number;
}

/** Facts of one event, by name. */
export type EventFacts = Partial<Record<FactName, number>>;

/** What has happened to the application's processes between two looks. */
export interface Changes {
  /** Ended, and not with exit code 0. */
  readonly failed: readonly string[];
  readonly checkpointed: readonly string[];
}

/** Weight of the newest checkpoint in `self.cost`. */
const COST_WEIGHT = 0.3;

class ProcessFacts {
  readonly name: string;
  startMs: number;
  /** [index, ms], oldest first. */
  checkpoints: (readonly [number, number])[] = [];
  counts: ProcessCounts;
  /** Of the last beat. */
  beat = { sent: 0, received: 0 };
  costMs = 0;
  /** A checkpoint that somebody knows the moment of: nobody has seen it in the log yet. */
  taken: readonly [checkpoint: number, ms: number] = [0, 0];
  info: ProcessInfo;

  constructor(info: ProcessInfo, counts: ProcessCounts, startMs: number) {
    this.name = info.process;
    this.info = info;
    this.counts = counts;
    this.startMs = startMs;
  }

  get ageFromMs(): number {
    return this.checkpoints.at(-1)?.[1] ?? this.startMs;
  }

  /** When a checkpoint was taken; before the oldest that is remembered: that it was so late is not said. */
  takenMs(checkpoint: number): number {
    if (checkpoint === 0) return this.startMs;
    for (const [index, ms] of this.checkpoints) if (index >= checkpoint) return ms;
    return this.ageFromMs;
  }

  /** It goes on from where it went back to: what was undone, and the time in which nobody ran, is no work that a failure could undo now. */
  resumed(nowMs: number): void {
    const laterMs = nowMs - this.ageFromMs;
    this.startMs += laterMs;
    this.checkpoints = this.checkpoints.map(([index, ms]) => [index, ms + laterMs]);
  }

  /** Returns true for a new checkpoint. What a rollback undid is forgotten. */
  take(counts: ProcessCounts, nowMs: number): boolean {
    this.counts = counts;
    const newest = this.checkpoints.at(-1)?.[0] ?? 0;
    if (counts.newest < newest)
      this.checkpoints = this.checkpoints.filter(([index]) => index <= counts.newest);
    if (counts.newest <= newest) return false;
    const [known, ms] = this.taken;
    this.checkpoints.push([counts.newest, known === counts.newest ? ms : nowMs]);
    if (this.checkpoints.length > MAX_CHECKPOINT_TIMES) this.checkpoints.shift();
    return true;
  }
}

/** Who would go back by one failure: how many, and the sum of the times of where they go back to. */
interface Back {
  readonly count: number;
  readonly sumMs: number;
}

/** What facts are read from. */
interface Scene {
  readonly table: FactTable;
  readonly nowMs: number;
  readonly node: NodeFacts;
  readonly event: EventFacts;
}
type Read = (self: ProcessFacts, scene: Scene) => number;

const flag = (value: boolean): number => (value ? 1 : 0);
const seconds = (ms: number): number => Math.max(0, ms) / 1000;
const age: Read = (self, { nowMs }) => seconds(nowMs - self.ageFromMs);
const loss: Read = (self, { table, nowMs }) => table.lossOf(self, nowMs);

const OF_PROCESS: Partial<Record<FactName, Read>> = {
  "self.age": age,
  "self.changed": ({ counts }) => flag(counts.changed),
  "self.cost": ({ costMs }) => seconds(costMs),
  "self.frozen": ({ name }, { table, nowMs }) => table.frozenShare(name, nowMs),
  "self.loss": loss,
  "self.depth": ({ name }, { table }) => table.line?.of(name)?.depth ?? 0,
  "self.breadth": ({ name }, { table }) => table.line?.of(name)?.breadth ?? 1,
  "self.sent": ({ counts }) => counts.sentSince,
  "self.received": ({ counts }) => counts.receivedSince,
  "self.fixed": ({ counts }) => flag(counts.sentSince > 0),
  "self.hidden": ({ counts, info }) => flag(counts.hidden || info.uncaptured.length > 0),
  "self.turn": ({ name }, { table }) => table.turnOf(name),
  "peer.age": (self, scene) => scene.table.greatestOfPeers(self, age, scene),
  "peer.loss": (self, scene) => scene.table.greatestOfPeers(self, loss, scene),
  "beat.sent": ({ beat }) => beat.sent,
  "beat.received": ({ beat }) => beat.received,
};

const OF_NODE: Partial<Record<FactName, (scene: Scene) => number>> = {
  "app.processes": ({ table }) => table.running.length,
  "app.age": (scene) => scene.table.greatest((self) => (self.counts.changed ? age(self, scene) : 0)),
  "app.loss": (scene) => scene.table.greatest((self) => loss(self, scene)),
  "app.frozen": ({ table, nowMs }) => table.greatest(({ name }) => table.frozenShare(name, nowMs)),
  "app.retained": ({ table }) => table.retained,
  "app.garbage": ({ table }) => table.line?.garbage ?? 0,
  "node.free": ({ node }) => node.free,
  "node.memory": ({ node }) => node.memory,
  "line.age": ({ table, nowMs }) => table.lineAge(nowMs),
  "beat.sent": ({ table }) => table.sum(({ beat }) => beat.sent),
  "beat.received": ({ table }) => table.sum(({ beat }) => beat.received),
};

export class FactTable {
  /** Share of the time that checkpoints held a process still, at a time. */
  readonly frozenShare: (process: string, nowMs: number) => number;
  readonly #known = new Map<string, ProcessFacts>();
  readonly #stored = new Map<string, StoredClock>();
  #running: readonly ProcessFacts[] = [];
  #beatSums = new Map<string, { readonly sent: number; readonly received: number }>();
  #line: LineFacts | undefined;
  #back = new Map<string, Back | undefined>();
  #turns = new Map<string, number>();

  constructor(frozenShare: (process: string, nowMs: number) => number) {
    this.frozenShare = frozenShare;
  }

  /** What was stored of earlier, to be taken up when the processes are seen. */
  remember(clocks: readonly StoredClock[]): void {
    for (const clock of clocks) this.#stored.set(clock.process, clock);
  }

  /** Takes what the collector knows now. */
  look(processes: readonly ProcessInfo[], counts: readonly ProcessCounts[], nowMs: number): Changes {
    const changes = { failed: [] as string[], checkpointed: [] as string[] };
    const byName = new Map(counts.map((one) => [one.process, one]));
    for (const info of processes) {
      const now = byName.get(info.process);
      if (now === undefined) continue;
      const before = this.#known.get(info.process);
      if (before === undefined) this.#meet(info, now, nowMs);
      else this.#compare(before, info, now, nowMs, changes);
    }
    this.#running = [...this.#known.values()]
      .filter(({ info }) => info.live && info.cgroupId !== 0)
      .sort((a, b) => (a.name < b.name ? -1 : 1));
    this.#turns = new Map(this.#running.map(({ name }, at) => [name, at / this.#running.length]));
    return changes;
  }

  /** Names of processes that run and can be held still, in order. */
  get running(): readonly string[] {
    return this.#running.map(({ name }) => name);
  }

  get line(): LineFacts | undefined {
    return this.#line;
  }

  /** As it was computed last. */
  set line(line: LineFacts) {
    this.#line = line;
    this.#back = new Map(this.running.map((name) => [name, this.#sumOf(line.of(name))]));
  }

  #sumOf(failure: FailureFacts | undefined): Back | undefined {
    if (failure === undefined) return undefined;
    const taken = failure.back.flatMap(
      ([name, checkpoint]) => this.#known.get(name)?.takenMs(checkpoint) ?? [],
    );
    return { count: taken.length, sumMs: taken.reduce((sum, ms) => sum + ms, 0) };
  }

  /** Something was received, a checkpoint taken or a process ended since this said something else. */
  get mark(): string {
    return this.#running.map(({ name, counts }) => `${name} ${counts.received} ${counts.newest}`).join(",");
  }

  /** Once a beat, before facts are read. */
  beat(): void {
    for (const one of this.#running) {
      const { sent, received } = one.counts;
      const before = this.#beatSums.get(one.name) ?? { sent, received };
      const since = (now: number, then: number): number => (now < then ? now : now - then);
      one.beat = { sent: since(sent, before.sent), received: since(received, before.received) };
      this.#beatSums.set(one.name, { sent, received });
    }
  }

  /** A checkpoint held it still for so long, until now. */
  measured(process: string, checkpoint: number, frozenMs: number, nowMs: number): void {
    const one = this.#known.get(process);
    if (one === undefined) return;
    one.costMs = one.costMs === 0 ? frozenMs : one.costMs + COST_WEIGHT * (frozenMs - one.costMs);
    one.taken = [checkpoint, nowMs - frozenMs];
  }

  /** A row a process, in the order of `names`; whom nobody knows is left out. What is the same for all of them is found once. */
  rows(processes: readonly string[], names: readonly FactName[], scene: Omit<Scene, "table">): FactRow[] {
    const all = { ...scene, table: this };
    const own = names.map((name) => (scene.event[name] === undefined ? OF_PROCESS[name] : undefined));
    const same = names.map((name, at) =>
      own[at] === undefined ? (scene.event[name] ?? OF_NODE[name]?.(all) ?? 0) : 0,
    );
    return processes.flatMap((process) => {
      const self = this.#known.get(process);
      if (self === undefined) return [];
      return [{ process, facts: same.map((value, at) => own[at]?.(self, all) ?? value) }];
    });
  }

  nodeRow(names: readonly FactName[], scene: Omit<Scene, "table">): number[] {
    const all = { ...scene, table: this };
    return names.map((name) => scene.event[name] ?? OF_NODE[name]?.(all) ?? 0);
  }

  /** Process → seconds since its newest checkpoint, of those that did something since. */
  changedAges(nowMs: number): Map<string, number> {
    const changed = this.#running.filter(({ counts }) => counts.changed);
    return new Map(changed.map((one) => [one.name, seconds(nowMs - one.ageFromMs)]));
  }

  /** Process → work that its failure would cost, seconds, the age of the line counted in. */
  losses(nowMs: number): Map<string, number> {
    return new Map(this.#running.map((one) => [one.name, this.lossOf(one, nowMs)]));
  }

  /** Work of all who would go back, as of now; before the first line its own since its newest checkpoint. */
  lossOf(self: ProcessFacts, nowMs: number): number {
    const back = this.#back.get(self.name);
    if (back === undefined) return seconds(nowMs - self.ageFromMs);
    return seconds(back.count * nowMs - back.sumMs);
  }

  lineAge(nowMs: number): number {
    return this.line === undefined ? Number.POSITIVE_INFINITY : seconds(nowMs - this.line.atMs);
  }

  get retained(): number {
    return this.line?.checkpoints ?? this.sum(({ counts }) => counts.checkpoints);
  }

  turnOf(process: string): number {
    return this.#turns.get(process) ?? 0;
  }

  greatest(of: (self: ProcessFacts) => number): number {
    return this.#running.reduce((most, self) => Math.max(most, of(self)), 0);
  }

  sum(of: (self: ProcessFacts) => number): number {
    return this.#running.reduce((sum, self) => sum + of(self), 0);
  }

  greatestOfPeers(self: ProcessFacts, of: Read, scene: Scene): number {
    let most = 0;
    for (const name of this.line?.of(self.name)?.peers ?? []) {
      const peer = this.#known.get(name);
      if (peer !== undefined) most = Math.max(most, of(peer, scene));
    }
    return most;
  }

  /** `wallMs`: the wall clock at `nowMs`. */
  stored(nowMs: number, wallMs: number): StoredClock[] {
    const toWall = (ms: number): number => Math.round(wallMs - (nowMs - ms));
    return [...this.#known.values()].map(({ name, startMs, checkpoints }) => ({
      process: name,
      startMs: toWall(startMs),
      checkpoints: checkpoints.map(([index, ms]) => [index, toWall(ms)] as const),
    }));
  }

  /** What was stored of it counts as far as the log still says the same: its checkpoints by index. */
  #meet(info: ProcessInfo, counts: ProcessCounts, nowMs: number): void {
    const stored = this.#stored.get(info.process);
    const fromWall = (ms: number): number => nowMs - Math.max(0, Date.now() - ms);
    const one = new ProcessFacts(info, counts, stored === undefined ? nowMs : fromWall(stored.startMs));
    for (const [index, ms] of stored?.checkpoints ?? [])
      if (index <= counts.newest) one.checkpoints.push([index, fromWall(ms)]);
    one.take(counts, one.checkpoints.at(-1)?.[1] ?? one.startMs);
    this.#known.set(info.process, one);
  }

  #compare(
    one: ProcessFacts,
    info: ProcessInfo,
    counts: ProcessCounts,
    nowMs: number,
    changes: { failed: string[]; checkpointed: string[] },
  ): void {
    const before = one.info;
    one.info = info;
    const starts = info.incarnation !== before.incarnation || (info.live && !before.live);
    if (before.live && !info.live && hasFailed(info)) changes.failed.push(info.process);
    if (one.take(counts, nowMs)) changes.checkpointed.push(info.process);
    if (starts) one.resumed(nowMs);
  }
}

/** As `restart` takes it: whoever ended with exit code 0 has finished. */
export function hasFailed({ end, left }: ProcessInfo): boolean {
  if (left.length > 0) return false; // it goes on elsewhere: no restart would bring it back
  return end === undefined || "signal" in end || end.code !== 0;
}
