/** A ring and a disk in memory that outlive the collector using them, and that fail and die on command. */

import type { EventColumns } from "../../src/format/event-columns.ts";
import { RingKind, SLOT_BYTES } from "../../src/format/ring-layout.ts";
import type { AppendLog, OpenLog } from "../../src/log/append-log.ts";
import type { CommittedLog } from "../../src/log/event-log.ts";
import type { PrunePlan } from "../../src/log/plan-prune.ts";
import type { Cut, Event } from "../../src/model/event.ts";
import type { CutEntry, DrainResult, EventSource, SourceCut, Verdict } from "../../src/model/event-source.ts";
import { encodeSlots, type Slot } from "./ring-slots.ts";

/** The kernel's side: what goes on while no collector lives. */
export class FakeRing {
  id = "boot-1:7";
  bootId = "boot-1";
  consumer = 0;
  readonly slots: Partial<Slot>[] = [];
  /** Incarnation by cgroup. */
  readonly selected = new Map<number, number>();
  /** Records that found no room: the kernel's positions still tell them, with the next one, or when it is asked. */
  readonly untold = new Map<number, Partial<Slot>[]>();
  /** Times a record found no room. */
  lostTotal = 0;
  misses = 0;
  readonly verdicts: Verdict[] = [];
  capacity = 1_000_000;
  /** Index of a slot that its producer has not finished; -1 = none. */
  busyAt = -1;
  cutEntries: CutEntry[] = [];

  get producer(): number {
    return this.slots.length * SLOT_BYTES;
  }

  /** Appends a record of the process's life; false where there is no room: then it waits for the next one, or a flush. */
  put(slot: Partial<Slot> & { process: number }): boolean {
    const waiting = this.untold.get(slot.process) ?? [];
    this.untold.set(slot.process, waiting);
    waiting.push({ thread: this.selected.get(slot.process) ?? 0, time: 1000 + this.slots.length, ...slot });
    if (this.flush([slot.process])) this.lostTotal += 1;
    return waiting.length === 0;
  }

  /** True where there is no room for all. */
  flush(processes: Iterable<number>): boolean {
    for (const process of processes) {
      const waiting = this.untold.get(process) ?? [];
      while (waiting.length > 0) {
        if (this.producer - this.consumer >= this.capacity * SLOT_BYTES) return true;
        this.slots.push({ ...waiting.shift(), position: this.producer });
      }
    }
    return false;
  }

  /** Something that the kernel can't follow: a flag, and a record that wakes, if there is room for it. */
  judge(cgroupId: number, reason: number, shared: Partial<Verdict> = {}): void {
    const incarnation = this.selected.get(cgroupId) ?? 0;
    this.verdicts.push({
      cgroupId,
      incarnation,
      bits: 1 << reason,
      other: 0,
      local: 0,
      remote: 0,
      ...shared,
    });
    if (this.producer - this.consumer < this.capacity * SLOT_BYTES)
      this.put({ process: cgroupId, kind: RingKind.VERDICT, local: reason });
  }
}

/** A collector's handle on the ring. After `kill` every call throws, as nothing of a dead process goes on. */
export class FakeSource implements EventSource {
  readonly ringId: string;
  readonly bootId: string;
  readonly ringBytes: number;
  readonly wakesForFirst = false;
  readonly #ring: FakeRing;
  #read: number;
  dead = false;

  constructor(ring: FakeRing) {
    this.#ring = ring;
    this.ringId = ring.id;
    this.bootId = ring.bootId;
    this.ringBytes = ring.capacity * SLOT_BYTES;
    this.#read = ring.consumer;
  }

  kill(): void {
    this.dead = true;
  }

  #alive(): FakeRing {
    if (this.dead) throw new Error("killed");
    return this.#ring;
  }

  drain(buffer: Uint8Array): DrainResult {
    const ring = this.#alive();
    const first = this.#read / SLOT_BYTES;
    let last = Math.min(ring.slots.length, first + Math.floor(buffer.length / SLOT_BYTES));
    if (ring.busyAt >= first && ring.busyAt < last) last = ring.busyAt;
    buffer.set(encodeSlots(ring.slots.slice(first, last)));
    this.#read = last * SLOT_BYTES;
    return { records: last - first, position: this.#read, foreign: 0 };
  }

  commit(position: number): void {
    const ring = this.#alive();
    if (position < ring.consumer || position > this.#read) throw new Error(`bad commit ${position}`);
    ring.consumer = position;
  }

  rewind(): void {
    this.#read = this.#alive().consumer;
  }

  readPosition(): number {
    return this.#alive() && this.#read;
  }

  producerPosition(): number {
    return this.#alive().producer;
  }

  fillBytes(): number {
    const ring = this.#alive();
    return ring.producer - ring.consumer;
  }

  onWake(): void {}

  now(): number {
    return 1e9;
  }

  select(cgroupId: number, on: boolean, incarnation: number): void {
    const { selected } = this.#alive();
    if (on) selected.set(cgroupId, incarnation);
    else selected.delete(cgroupId);
  }

  attach(cgroupId: number, incarnation: number): void {
    this.select(cgroupId, true, incarnation);
  }

  counters() {
    const { lostTotal, misses } = this.#alive();
    return { lost: [lostTotal], recursionMisses: misses };
  }

  flush(cgroupIds: readonly number[]): boolean {
    return this.#alive().flush(cgroupIds);
  }

  verdicts(): readonly Verdict[] {
    return this.#alive().verdicts;
  }

  userfaultCounts(): undefined {}

  holdOutput(): void {}

  heldCount(): number {
    return 0;
  }

  outputs(): readonly never[] {
    return [];
  }

  release(): void {}

  takeUnheld(): readonly never[] {
    return [];
  }

  expectRestore(): never {
    throw new Error("nothing is restored over a ring in memory");
  }

  cut(cgroupId: number): SourceCut {
    const ring = this.#alive();
    return { complete: true, pending: ring.flush([cgroupId]), entries: [...ring.cutEntries] };
  }

  close(): void {}
}

/** How the next commit goes wrong: nothing written, or written and not said so. */
export type Failure = "before" | "after";

interface Stored {
  events: Event[];
  state: Map<string, unknown>;
  /** Channels whose senders were looked for. */
  asked: string[];
}

/** The disk: one stored log a folder. */
export class FakeDisk {
  readonly logs = new Map<string, Stored>();
  /** Failures of the next commits of a folder, in order; undefined entries pass. */
  readonly failures = new Map<string, (Failure | undefined)[]>();
  openFails = 0;

  /** Events of one application's process, in log order. */
  events(folder: string, process?: string): Event[] {
    const all = this.logs.get(folder)?.events ?? [];
    return process === undefined ? all : all.filter((event) => event.process === process);
  }

  /** `alive` says whether the process that opens still lives. */
  opener(alive: () => boolean): OpenLog {
    return async (folder, { create }) => {
      if (this.openFails-- > 0) throw new Error("cannot open");
      this.openFails = Math.max(0, this.openFails);
      let stored = this.logs.get(folder);
      if (stored === undefined && !create) throw new Error(`no log ${folder}`);
      stored ??= { events: [], state: new Map(), asked: [] };
      this.logs.set(folder, stored);
      return new FakeLog(stored, () => this.failures.get(folder)?.shift(), alive);
    };
  }
}

class FakeLog implements AppendLog {
  readonly #stored: Stored;
  readonly #nextFailure: () => Failure | undefined;
  readonly #alive: () => boolean;
  #events: Event[] = [];
  #state = new Map<string, unknown>();
  #broken = false;

  constructor(stored: Stored, nextFailure: () => Failure | undefined, alive: () => boolean) {
    this.#stored = stored;
    this.#nextFailure = nextFailure;
    this.#alive = alive;
  }

  append(columns: EventColumns): void {
    for (const event of columns.events()) this.#events.push(event);
  }

  putState(key: string, value: unknown): void {
    this.#state.set(key, structuredClone(value));
  }

  getState(key: string): unknown {
    return structuredClone(this.#stored.state.get(key));
  }

  async senderOf(channel: string): Promise<string | undefined> {
    this.#stored.asked.push(channel);
    return this.#stored.events.find((event) => event.type === "send" && event.channel === channel)?.process;
  }

  async ownerOf(channel: string, reverse: string): Promise<string | undefined> {
    const owns = (event: Event): boolean =>
      (event.type === "send" && event.channel.startsWith(channel)) ||
      (event.type === "receive" && event.channel.startsWith(reverse));
    return this.#stored.events.find(owns)?.process;
  }

  async isAtOtherEnd(_: string, channel: string, reverse: string): Promise<boolean> {
    return (await this.ownerOf(channel, reverse)) !== undefined;
  }

  async commit(): Promise<void> {
    await Promise.resolve();
    if (!this.#alive() || this.#broken) throw new Error("dead");
    const failure = this.#nextFailure();
    if (failure !== "before") {
      for (const event of this.#events) this.#stored.events.push(event);
      for (const [key, value] of this.#state) this.#stored.state.set(key, value);
    }
    this.#events = [];
    this.#state = new Map();
    if (failure === undefined) return;
    this.#broken = true;
    throw new Error("no space left on device");
  }

  async *readBlocks(): AsyncGenerator<Uint8Array> {
    yield new Uint8Array();
  }

  // It has no blocks, segments or accounts of channels.

  committed(): CommittedLog {
    return { firstChain: 1, lastChain: 0, heads: new Map(), firstCarried: new Map() };
  }

  async block(chain: number): Promise<never> {
    throw new TypeError(`no block ${chain}`);
  }

  async completeCut(_process: string, cut: Cut): Promise<Cut> {
    return cut;
  }

  async rotate(): Promise<void> {}

  async planPrune(): Promise<PrunePlan> {
    return { base: undefined, reason: "there are no segments" };
  }

  async keptFrom(): Promise<number> {
    return 0;
  }

  async openSinceMs(): Promise<number> {
    return Date.now();
  }

  async prune(): Promise<never> {
    throw new Error("there are no segments");
  }

  async close(): Promise<void> {
    this.#broken = true;
  }
}
