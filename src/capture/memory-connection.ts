/**
 * One runtime that handed its memory rings over: records of all its threads in the order of its own sequence numbers, and the
 * events of its reliable path (checkpoints) between them.
 *
 * Nothing it says is believed before it is checked: entities must be its own, records must decode, sequence numbers be dense.
 */

import { dsmEntity, dsmEvent, entityName } from "../format/dsm-record.ts";
import { parseEvent } from "../format/interchange.ts";
import { RING_LAYOUT_VERSION, SLOT_BYTES } from "../format/ring-layout.ts";
import { decodeRecords, makeRecordColumns, type RecordColumns } from "../format/ring-record.ts";
import { RecoveryLineError } from "../model/errors.ts";
import type { DsmEvent } from "../model/event.ts";
import { DRAIN_BATCH_RECORDS } from "../model/limits.ts";
import { isAppName } from "../model/names.ts";
import { call, type MemoryRingHandle, type NativeAddon } from "../native/binding.ts";

/** What a runtime says first (native/dsm/trace.c). */
export interface MemoryHello {
  readonly application: string;
  readonly rank: number;
}

/** A reliable event and the sequence number of the last record before it. */
interface Control {
  readonly sequence: number;
  readonly event: DsmEvent;
}

const MAX_RANK = 7;
/** Reliable events that wait for their records, count: more is a runtime gone mad. */
const MAX_CONTROLS = 65_536;
/** Most records that one hole is said to hold: sequence numbers come from the runtime. */
const MAX_HOLE = 2 ** 32;

/** Throws RL_BAD_RECORD. */
export function parseHello(text: string): MemoryHello {
  const { version, application, rank } = parseObject(text);
  if (version !== RING_LAYOUT_VERSION || typeof application !== "string" || !isAppName(application))
    throw wrong(`its first message is not that of this version: ${text.slice(0, 80)}`);
  if (!Number.isInteger(rank) || (rank as number) < 0 || (rank as number) > MAX_RANK)
    throw wrong(`it claims rank ${String(rank)}`);
  return { application, rank: rank as number };
}

function parseObject(text: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw wrong(`it sent what is no JSON: ${text.slice(0, 80)}`);
  }
  if (typeof value !== "object" || value === null) throw wrong(`it sent no object: ${text.slice(0, 80)}`);
  return value as Record<string, unknown>;
}

function wrong(what: string): RecoveryLineError {
  return new RecoveryLineError("RL_BAD_RECORD", `a runtime with memory rings breaks the protocol: ${what}`);
}

/** One ring and what was drained from it and not yet merged. */
class RingTail {
  readonly #native: NativeAddon;
  readonly #ring: MemoryRingHandle;
  readonly #drained: () => void;
  readonly #bytes = new Uint8Array(DRAIN_BATCH_RECORDS * SLOT_BYTES);
  readonly #words = new Uint32Array(this.#bytes.buffer);
  readonly #position = new Float64Array(1);
  readonly records: RecordColumns = makeRecordColumns(DRAIN_BATCH_RECORDS);
  /** First row not yet merged. */
  row = 0;

  constructor(native: NativeAddon, ring: MemoryRingHandle, drained: () => void) {
    this.#native = native;
    this.#ring = ring;
    this.#drained = drained;
  }

  /** Sequence number of the next record, draining where none is at hand; undefined: the ring is empty. */
  head(): number | undefined {
    if (this.row === this.records.count) this.#drain();
    return this.row < this.records.count ? this.records.position[this.row] : undefined;
  }

  #drain(): void {
    const { count } = this.records;
    this.row = 0;
    this.records.count = 0;
    // The rows before are merged: their room goes back with the position that was read with them.
    if (count > 0) call("commit", () => this.#native.memoryCommit(this.#ring, this.#position[0]!));
    const records = call("memory ring", () =>
      this.#native.memoryDrain(this.#ring, this.#bytes, this.#position),
    );
    decodeRecords(this.#words, 0, records, this.records);
    if (records > 0) this.#drained();
  }

  lost(): number {
    return this.#native.memoryLost(this.#ring);
  }

  fill(): number {
    return this.#native.memoryFill(this.#ring);
  }

  close(): void {
    this.#native.memoryClose(this.#ring);
  }
}

export class MemoryConnection {
  readonly hello: MemoryHello;
  /** Names of its entities: process and home. */
  readonly entities: readonly [string, string];
  readonly #tails: readonly RingTail[];
  readonly #controls: Control[] = [];
  /** Sequence number of the record that must come next. */
  #next = 1;

  /**
   * `drained` is called after records were read, before any of them is taken: whatever the runtime has said before it wrote them must have
   * come to `control` when it returns, else a checkpoint would stand behind what its process did after it.
   */
  constructor(
    native: NativeAddon,
    hello: MemoryHello,
    rings: readonly MemoryRingHandle[],
    drained: () => void,
  ) {
    this.hello = hello;
    this.entities = [entityName(2 * hello.rank), entityName(2 * hello.rank + 1)];
    this.#tails = rings.map((ring) => new RingTail(native, ring, drained));
  }

  /** Of its fullest ring, 0 … 1; beyond that it lies. */
  get fill(): number {
    return Math.max(...this.#tails.map((tail) => tail.fill()));
  }

  /**
   * A later message: `{"sequence": n, "event": {…}}`, or `{"hurry": true}`, which has done its work by coming.
   * Throws RL_BAD_RECORD, and RL_BAD_INPUT for the event.
   */
  control(text: string): void {
    const { sequence, event, hurry } = parseObject(text);
    if (hurry === true) return;
    if (!Number.isSafeInteger(sequence) || (sequence as number) < (this.#controls.at(-1)?.sequence ?? 0))
      throw wrong("a reliable event has no rising sequence number");
    const parsed = parseEvent(JSON.stringify(event), { file: `rank ${this.hello.rank}`, line: 0 });
    if (parsed.type !== "checkpoint" || !this.entities.includes(parsed.process))
      throw wrong(`a reliable event is ${parsed.type} of ${parsed.process}`);
    if (this.#controls.length >= MAX_CONTROLS) throw wrong("too many reliable events before their records");
    this.#controls.push({ sequence: sequence as number, event: parsed });
  }

  /**
   * Appends to `events` until it has `most` (and the gaps among them), in order; fewer: nothing more is there yet. Throws RL_BAD_RECORD;
   * what it has appended stands.
   */
  take(events: DsmEvent[], most: number): void {
    while (events.length < most) {
      const tail = this.#tails.find((one) => one.head() === this.#next);
      if (this.#dueControl(events)) continue; // looked for behind `head`, which may have brought it
      if (tail === undefined) break;
      this.#takeRun(tail, most, events);
    }
  }

  /**
   * The runtime is gone: everything that is left, over holes that nobody will fill any more, and a gap for each loss that no
   * record told. As `take`.
   */
  takeRest(events: DsmEvent[]): void {
    for (;;) {
      this.take(events, Number.POSITIVE_INFINITY);
      const heads = this.#tails.map((tail) => tail.head()).filter((head) => head !== undefined);
      const next = Math.min(...heads, ...this.#controls.map(({ sequence }) => sequence + 1));
      if (!Number.isFinite(next)) break;
      if (next <= this.#next) {
        if (heads.length > 0 && Math.min(...heads) < this.#next) throw wrong("a sequence number came twice");
        continue;
      }
      this.#gap(Math.min(next - this.#next, MAX_HOLE), events);
      this.#next = next;
    }
    const lost = this.#tails.reduce((sum, tail) => sum + tail.lost(), 0);
    if (lost > 0) this.#gap(lost, events);
  }

  close(): void {
    for (const tail of this.#tails) tail.close();
  }

  #dueControl(events: DsmEvent[]): boolean {
    const control = this.#controls[0];
    if (control === undefined || control.sequence >= this.#next) return false;
    this.#controls.shift();
    events.push(control.event);
    return true;
  }

  /** What a thread did in one go, at least one row: up to a record of another ring, a reliable event, or `most` events. */
  #takeRun(tail: RingTail, most: number, events: DsmEvent[]): void {
    const { records } = tail;
    const until = this.#controls[0]?.sequence ?? Number.POSITIVE_INFINITY;
    do this.#takeRow(tail, events);
    while (
      this.#next <= until &&
      events.length < most &&
      tail.row < records.count &&
      records.position[tail.row] === this.#next
    );
  }

  #takeRow(tail: RingTail, events: DsmEvent[]): void {
    const { records, row } = tail;
    const lost = records.lostBefore[row]!;
    if (lost > 0) this.#gap(lost, events);
    events.push(dsmEvent(records, row, dsmEntity(records, row, this.hello.rank)));
    tail.row += 1;
    this.#next += 1;
  }

  /** A ring counts the losses of its thread; which entity they happened to nobody knows. */
  #gap(lost: number, events: DsmEvent[]): void {
    for (const process of this.entities) events.push({ type: "gap", process, lost });
  }
}
