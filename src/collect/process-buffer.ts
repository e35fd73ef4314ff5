/** One process's records on their way from the ring to its application's log. */
import { EVENT_KIND, EventColumns, isControlKind } from "../format/event-columns.ts";
import { RingFlag, RingKind } from "../format/ring-layout.ts";
import type { RecordColumns } from "../format/ring-record.ts";
import type { Event } from "../model/event.ts";
import type { AppLog } from "./app-log.ts";
import { ChannelCache } from "./channel-cache.ts";
import type { ProcessState } from "./process-state.ts";

/** Ranges that a process has sent and received, count. */
interface Sums {
  readonly sent: number;
  readonly received: number;
}

/** What a process has done, in numbers; what is not committed yet is missing. */
export interface ProcessCounts extends Sums {
  readonly process: string;
  /** Since its newest checkpoint or its last rollback. */
  readonly sentSince: number;
  readonly receivedSince: number;
  /** Events of it are missing, and no checkpoint with a cut came since. */
  readonly hidden: boolean;
  /** It has lines after its newest checkpoint. */
  readonly changed: boolean;
  readonly checkpoints: number;
  /** Index of the newest one, 0 = none. */
  readonly newest: number;
}

const NO_SUMS: Sums = { sent: 0, received: 0 };

/** Of a row in `EventColumns`. */
const ROW_BYTES = 33;
const SOCKET_MESSAGE = RingFlag.OPEN | RingFlag.END;

export class ProcessBuffer {
  readonly name: string;
  readonly app: AppLog;
  readonly state: ProcessState;
  columns: EventColumns;
  /** Times of its newest records, ns: of data, of an ending by a task that was not dying, of one that was. */
  lastDataNs = 0;
  lastEndNs = 0;
  lastFailingEndNs = 0;
  readonly #bootId: string;
  #channels: ChannelCache;
  readonly #addChannel = (name: string): number => this.columns.addChannel(name);
  /** Rows of `columns` that `state.lines` counts already. */
  #counted = 0;
  #sums: Sums = NO_SUMS;
  #sumsAtCheckpoint: Sums = NO_SUMS;
  #hidden = false;

  constructor(name: string, app: AppLog, state: ProcessState, bootId: string) {
    this.name = name;
    this.app = app;
    this.state = state;
    this.columns = new EventColumns(name);
    this.#bootId = bootId;
    this.#channels = new ChannelCache(bootId);
  }

  /** Takes row `row`; returns the number of gap rows it made. */
  take(records: RecordColumns, row: number): number {
    const kind = records.kind[row]!;
    if (records.lostBefore[row] === 0 && isRange(kind) && (records.flags[row]! & SOCKET_MESSAGE) === 0) {
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
    this.lastDataNs = Math.max(this.lastDataNs, records.time[row]!);
    this.columns.pushRange(
      sends ? EVENT_KIND.send : kind === RingKind.PEEK ? EVENT_KIND.peek : EVENT_KIND.receive,
      channel,
      begin,
      begin + records.length[row]!,
      records.time[row]!,
      0,
    );
  }

  /** Losses stand before the record that tells them; the kernel tells none. */
  #takeRare(records: RecordColumns, row: number, kind: number): number {
    const lost = records.lostBefore[row]!;
    const time = records.time[row]!;
    if (lost > 0) this.gap(lost, time);
    const told = lost > 0 ? 1 : 0;
    if ((records.flags[row]! & SOCKET_MESSAGE) !== 0) this.app.messages.take(this, records, row);
    else if (isRange(kind)) this.#range(records, row, kind);
    else if (kind === RingKind.PAGE_FAULT) this.#fault(records, row);
    else if (kind === RingKind.GAP && lost === 0) return told + this.gap(0, time);
    return told;
  }

  /** Page = address in the memory of this process: the same page has other names elsewhere. */
  #fault(records: RecordColumns, row: number): void {
    const access = (records.flags[row]! & RingFlag.WRITE) === 0 ? "read" : "write";
    const page = `0x${records.local[row]!.toString(16)}`;
    const event = { type: "page-fault", process: this.name, page, access } as const;
    this.columns.push({ ...event, time: records.time[row]! });
  }

  /**
   * The kernel can't follow it any more: a gap, once for each reason, and from now on checkpoints of this life carry no cut
   * (semantics 11). Returns the number of gap rows.
   */
  verdict(reason: string): number {
    if (!this.leftOut(reason)) return 0;
    return this.gap(0, undefined, reason);
  }

  /** Communication we cannot match went by: as `verdict`, but for its gap. True if that is news. */
  leftOut(reason: string): boolean {
    if (this.state.trust.has(reason) || this.state.uncaptured.has(reason)) return false;
    this.state.uncaptured.add(reason);
    this.state.changed = true;
    return true;
  }

  /** Says that events are missing here: `lost` of them, or 0 = nobody knows how many. Returns 1. */
  gap(lost: number, time?: number, reason?: string): 1 {
    this.columns.push({
      type: "gap",
      process: this.name,
      ...(lost > 0 ? { lost } : {}),
      ...(reason === undefined ? {} : { reason }),
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
    if (event.type === "checkpoint" || event.type === "rollback") this.#sumsAtCheckpoint = this.#sums;
    if (event.type === "checkpoint" && event.cut !== undefined) this.#hidden = false;
    return position;
  }

  /** Brings `state.lines` up to the rows taken so far. */
  settle(): void {
    const fresh = this.columns.count - this.#counted;
    if (fresh === 0) return;
    if (this.app.counting) this.#sum();
    this.state.lines += fresh;
    this.state.changed = true;
    this.#counted = this.columns.count;
  }

  #sum(): void {
    let { sent, received } = this.#sums;
    const { kind, count } = this.columns;
    for (let row = this.#counted; row < count; row += 1) {
      if (kind[row] === EVENT_KIND.send) sent += 1;
      else if (kind[row] === EVENT_KIND.receive) received += 1;
      else if (kind[row] === EVENT_KIND.gap) this.#hidden = true;
    }
    this.#sums = { sent, received };
  }

  /** For policies; ranges count from when `AppLog.counting` was set on. */
  get counts(): ProcessCounts {
    const { state, name } = this;
    const [newest, position] = state.storedCheckpoints().at(-1) ?? [0, 0];
    return {
      process: name,
      ...this.#sums,
      sentSince: this.#sums.sent - this.#sumsAtCheckpoint.sent,
      receivedSince: this.#sums.received - this.#sumsAtCheckpoint.received,
      hidden: this.#hidden,
      changed: state.lines > position,
      checkpoints: state.storedCheckpoints().length,
      newest,
    };
  }

  /** The log has taken the columns: the next rows begin new ones. */
  flushed(): void {
    this.columns = new EventColumns(this.name);
    this.#counted = 0;
    this.#channels.nextColumns();
  }

  /** Memory of its columns and of its cache of names, bytes, about. */
  get bufferBytes(): number {
    return this.columns.kind.length * ROW_BYTES + this.#channels.bytes;
  }

  /** It has ended: names can be derived again. */
  dropCache(): void {
    this.#channels = new ChannelCache(this.#bootId);
    this.flushed();
  }
}

function isRange(kind: number): boolean {
  return kind === RingKind.SEND || kind === RingKind.RECEIVE || kind === RingKind.PEEK;
}
