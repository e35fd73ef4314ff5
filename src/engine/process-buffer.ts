/** One process's records on their way from the ring to its application's log. */
import { EVENT_KIND, EventColumns, isControlKind } from "../format/event-columns.ts";
import { RingFlag, RingKind, UNMATCHED_REASONS } from "../format/ring-layout.ts";
import type { RecordColumns } from "../format/ring-record.ts";
import type { Event } from "../model/event.ts";
import type { AppLog } from "./app-log.ts";
import { ChannelCache } from "./channel-cache.ts";
import type { ProcessState } from "./process-state.ts";

export class ProcessBuffer {
  readonly name: string;
  readonly app: AppLog;
  readonly state: ProcessState;
  columns: EventColumns;
  readonly #channels: ChannelCache;
  readonly #addChannel = (name: string): number => this.columns.addChannel(name);
  /** Rows of `columns` that `state.lines` counts already. */
  #counted = 0;

  constructor(name: string, app: AppLog, state: ProcessState, bootId: string) {
    this.name = name;
    this.app = app;
    this.state = state;
    this.columns = new EventColumns(name);
    this.#channels = new ChannelCache(bootId);
  }

  /** Takes row `row`; returns the number of gap rows it made. */
  take(records: RecordColumns, row: number): number {
    const kind = records.kind[row]!;
    if (records.lostBefore[row] === 0 && (kind === RingKind.SEND || kind === RingKind.RECEIVE)) {
      this.#range(records, row, kind);
      return 0;
    }
    return this.#takeRare(records, row, kind);
  }

  #range(records: RecordColumns, row: number, kind: number): void {
    const sends = kind === RingKind.SEND;
    const sender = sends ? records.local[row]! : records.remote[row]!;
    const receiver = sends ? records.remote[row]! : records.local[row]!;
    const unix = (records.flags[row]! & RingFlag.UNIX) !== 0;
    const channel = this.#channels.index(unix, sender, receiver, this.#addChannel);
    const begin = records.begin[row]!;
    this.columns.pushRange(
      sends ? EVENT_KIND.send : EVENT_KIND.receive,
      channel,
      begin,
      begin + records.length[row]!,
      records.time[row]!,
      records.thread[row]!,
    );
  }

  /** Losses stand before the record that tells them. */
  #takeRare(records: RecordColumns, row: number, kind: number): number {
    const lost = records.lostBefore[row]!;
    const time = records.time[row]!;
    if (lost > 0) this.gap(lost, time);
    const told = lost > 0 ? 1 : 0;
    if (kind === RingKind.SEND || kind === RingKind.RECEIVE) this.#range(records, row, kind);
    else if (kind === RingKind.UNMATCHED) return told + this.#unmatched(records.local[row]!, time);
    else if (kind === RingKind.PAGE_FAULT) this.#fault(records, row);
    else if (lost === 0) return told + this.gap(0, time);
    return told;
  }

  /** Page = address in the memory of this process: the same page has other names elsewhere. */
  #fault(records: RecordColumns, row: number): void {
    const access = (records.flags[row]! & RingFlag.WRITE) === 0 ? "read" : "write";
    const page = `0x${records.local[row]!.toString(16)}`;
    const event = { type: "page-fault", process: this.name, page, access } as const;
    this.columns.push({ ...event, time: records.time[row]! }, records.thread[row]!);
  }

  /** Communication we cannot match: a gap, and from now on checkpoints of this process carry no cut (semantics 11). */
  #unmatched(reason: number, time: number): number {
    const name = UNMATCHED_REASONS[reason] ?? UNMATCHED_REASONS[0]!;
    if (this.state.trust.has(name)) return 0;
    this.state.uncaptured.add(name);
    return this.gap(0, time);
  }

  /** Communication we cannot match went by: as if it had been recorded, but for its gap. */
  leftOut(reason: string): void {
    if (this.state.trust.has(reason) || this.state.uncaptured.has(reason)) return;
    this.state.uncaptured.add(reason);
    this.state.changed = true;
  }

  /** Says that events are missing here: `lost` of them, or 0 = nobody knows how many. Returns 1. */
  gap(lost: number, time?: number): 1 {
    this.columns.push({
      type: "gap",
      process: this.name,
      ...(lost > 0 ? { lost } : {}),
      ...(time === undefined ? {} : { time }),
    });
    return 1;
  }

  /** One event of a runtime with memory rings. Throws what `control` throws. */
  event(event: Event): void {
    if (isControlKind(EVENT_KIND[event.type])) this.control(event);
    else this.columns.push(event);
  }

  /** One event of the reliable path; returns its position. Throws what `ProcessState.apply` throws, before any change. */
  control(event: Event): number {
    this.settle();
    const position = this.state.apply(event);
    this.columns.push(event);
    this.#counted = this.columns.count;
    return position;
  }

  /** Brings `state.lines` up to the rows taken so far. */
  settle(): void {
    const fresh = this.columns.count - this.#counted;
    if (fresh === 0) return;
    this.state.lines += fresh;
    this.state.changed = true;
    this.#counted = this.columns.count;
  }

  /** The log has taken the columns: the next rows begin new ones. */
  flushed(): void {
    this.columns = new EventColumns(this.name);
    this.#counted = 0;
    this.#channels.nextColumns();
  }
}
