/**
 * Opening and ending of connections as messages of one unit: `<channel>/open`, `<channel>/end` (interchange.md).
 *
 * A receive must never stand in a log without its send: nobody would be able to keep it. So
 *
 *   send      appended as it comes; that of an END by a dying task (FAILING) waits until it is known whether its whole process ended:
 *             then it is no message but the failure itself, and its receive is none either
 *   receive   appended if the send is; else it waits for the next drain (`settle`), which has made the kernel tell all that it knows:
 *             what has no send by then came from a process that is not recorded here, and goes. Where the kernel has told that the other
 *             end is outside (outside-peers.ts) nobody waits: a server may close thousands of such connections a second
 *   AF_UNIX   close() raises no record at the closing end: the receive makes the sender's message, if that process is recorded and
 *             did not end by failure. Where both ends are gone and nobody was seen to read an end of file, each may have known the
 *             other's (by poll): both receive, unless the process itself is over
 *
 * To wait does no harm: everything is decided before a checkpoint, a rollback, or an answer, and a receive may stand anywhere between two of
 * them. What waits is part of the log's state (`AppLog`, "held"), so that a crash loses none. Sends whose receives are still to come are
 * remembered here, MAX_OPEN_MESSAGES of them, and beyond that looked for in the log.
 */
import { EVENT_KIND } from "../format/event-columns.ts";
import { RingFlag, RingKind } from "../format/ring-layout.ts";
import type { RecordColumns } from "../format/ring-record.ts";
import { reverseChannel } from "../log/complete-cut.ts";
import { channelName } from "../model/channel-names.ts";
import type { CutEntry } from "../model/event-source.ts";
import {
  FAILING_END_MS,
  MAX_HELD_MESSAGES,
  MAX_OPEN_MESSAGES,
  MAX_WAITING_MESSAGES,
  UNIX_END_MS,
} from "../model/limits.ts";
import type { ProcessBuffer } from "./process-buffer.ts";

/** One message that waits; plain values for msgpackr. */
export interface HeldMessage {
  readonly process: string;
  /** Of the process when it came. */
  readonly incarnation: number;
  /** `<channel>/open` or `<channel>/end`. */
  readonly name: string;
  readonly sends: boolean;
  readonly unix: boolean;
  /** Nobody was seen to receive it. */
  readonly unseen?: boolean;
  /** Of the record, ns. */
  readonly time: number;
}

interface Waiting extends HeldMessage {
  readonly sinceMs: number;
}

/** What `settle` asks of others. */
export interface Settling {
  /** Is anything left in its cgroup? */
  populated(process: ProcessBuffer): boolean;
  /** Process that has sent this one-unit message by the log. */
  senderOf(name: string): Promise<string | undefined>;
  /** Process whose end sends on this channel by the log. */
  ownerOf(channel: string, reverse: string): Promise<string | undefined>;
  readonly nowMs: number;
}

/** Between the endings of the first and the last task of a process that is killed as a whole, and between the first and what another still does. */
const KILLED_TOGETHER_NS = 100e6;
const STILL_AT_WORK_NS = 10e6;

type Fate = "sent" | "failed";

export class SocketMessages {
  readonly #processes: ReadonlyMap<string, ProcessBuffer>;
  readonly #bootId: string;
  /** Sends whose receives have not come, oldest first. */
  readonly #fate = new Map<string, Fate>();
  /** What waits, by name, oldest first. */
  readonly #sends = new Map<string, Waiting>();
  readonly #receives = new Map<string, Waiting>();
  /** Messages that are still to come, of connections whose other end is outside: none has another half. */
  readonly #alone = new Set<string>();
  /** What waits is not what the log's state says. */
  changed = false;

  constructor(processes: ReadonlyMap<string, ProcessBuffer>, bootId: string) {
    this.#processes = processes;
    this.#bootId = bootId;
  }

  /** To be stored. */
  held(): HeldMessage[] {
    return [...this.#sends.values(), ...this.#receives.values()].map(({ sinceMs: _, ...held }) => held);
  }

  /** As it was stored, in the place of what waits now. */
  load(held: readonly HeldMessage[], nowMs: number): void {
    for (const all of [this.#sends, this.#receives, this.#fate, this.#alone]) all.clear();
    for (const one of held) this.#heldLike(one).set(one.name, { ...one, sinceMs: nowMs });
    this.changed = false;
  }

  get waits(): boolean {
    return this.#sends.size + this.#receives.size > 0;
  }

  /** So many wait that a drain is due now. */
  get full(): boolean {
    return this.#sends.size + this.#receives.size >= MAX_HELD_MESSAGES;
  }

  /** More wait than may. */
  get tooMany(): boolean {
    return this.#receives.size > MAX_WAITING_MESSAGES;
  }

  /** True if something has waited long enough to be decided without a drain that somebody asked for. */
  due(nowMs: number): boolean {
    if (this.full) return true;
    return [this.#sends, this.#receives].some((held) => {
      for (const { sinceMs } of held.values()) return nowMs - sinceMs >= FAILING_END_MS; // oldest first
      return false;
    });
  }

  #heldLike({ sends }: Pick<HeldMessage, "sends">): Map<string, Waiting> {
    return sends ? this.#sends : this.#receives;
  }

  /** A record with OPEN or END. */
  take(process: ProcessBuffer, records: RecordColumns, row: number): void {
    const flags = records.flags[row]!;
    const sends = records.kind[row] === RingKind.SEND;
    const unix = (flags & RingFlag.UNIX) !== 0;
    const [sender, receiver] = sends
      ? [records.local[row]!, records.remote[row]!]
      : [records.remote[row]!, records.local[row]!];
    const channel = channelName(unix, this.#bootId, sender, receiver);
    const name = channel + ((flags & RingFlag.OPEN) === 0 ? "/end" : "/open");
    const time = records.time[row]!;
    const failing = (flags & RingFlag.FAILING) !== 0;
    const ends = sends && (flags & RingFlag.END) !== 0; // an opening may be told late, by a flush
    if (ends && failing) process.lastFailingEndNs = Math.max(process.lastFailingEndNs, time);
    else if (ends) process.lastEndNs = Math.max(process.lastEndNs, time);
    if (failing) this.#hold(process, name, time, { sends, unix, ...(sends ? {} : { unseen: true }) });
    else if (sends) this.#send(process, name, time);
    else this.#receive(process, name, time, unix);
  }

  #send(process: ProcessBuffer, name: string, time: number): void {
    append(process, EVENT_KIND.send, name, time);
    const receive = this.#receives.get(name);
    const receiver = receive && this.#processOf(receive);
    if (receive !== undefined) this.#drop(receive);
    if (receive !== undefined && receiver !== undefined)
      append(receiver, EVENT_KIND.receive, name, receive.time);
    else if (!this.#alone.delete(name)) this.#remember(name, "sent");
  }

  #receive(process: ProcessBuffer, name: string, time: number, unix: boolean): void {
    if (this.#alone.delete(name)) return;
    const fate = this.#fate.get(name);
    if (fate === undefined) this.#hold(process, name, time, { sends: false, unix });
    else this.#fate.delete(name);
    if (fate === "sent") append(process, EVENT_KIND.receive, name, time);
  }

  /** The other end of a connection is outside: nobody there sends or receives these messages by any log. */
  outside(names: readonly string[]): void {
    for (const name of names) {
      if (this.#receives.delete(name)) this.changed = true;
      else if (!this.#fate.delete(name)) this.#alone.add(name);
    }
    if (this.#alone.size > MAX_OPEN_MESSAGES) this.#alone.clear(); // what then comes waits like any other
  }

  #remember(name: string, fate: Fate): void {
    this.#fate.delete(name);
    this.#fate.set(name, fate);
    if (this.#fate.size <= MAX_OPEN_MESSAGES) return;
    const [oldest] = this.#fate.keys();
    this.#fate.delete(oldest!);
  }

  #hold(
    { name: process, state }: ProcessBuffer,
    name: string,
    time: number,
    what: Pick<HeldMessage, "sends" | "unix" | "unseen">,
  ): void {
    const { incarnation } = state;
    this.#heldLike(what).set(name, { process, incarnation, name, time, ...what, sinceMs: performance.now() });
    this.changed = true;
  }

  #drop(message: HeldMessage): void {
    if (this.#heldLike(message).delete(message.name)) this.changed = true;
  }

  /** The process in the life that it had then; undefined: that life is over, and was settled. */
  #processOf({ process, incarnation }: HeldMessage): ProcessBuffer | undefined {
    const found = this.#processes.get(process);
    return found?.state.incarnation === incarnation ? found : undefined;
  }

  /** Ends of dying tasks whose process goes on or is gone by now. Returns how long the others must be waited for, ms; 0 = all decided. */
  settleFailing({ populated, nowMs }: Settling): number {
    let waitMs = 0;
    for (const message of this.#sends.values()) {
      const process = this.#processOf(message);
      const leftMs = message.sinceMs + FAILING_END_MS - nowMs;
      if (process === undefined) {
        this.#fail(message);
        continue;
      }
      const ended = !populated(process);
      if (ended && !outlived(message, process)) this.#fail(message);
      else if (ended || leftMs <= 0) {
        this.#drop(message);
        this.#send(process, message.name, message.time);
      } else waitMs = Math.max(waitMs, leftMs);
    }
    return waitMs;
  }

  /** The whole process ended by it. */
  #fail(message: HeldMessage): void {
    this.#drop(message);
    const receive = this.#receives.get(message.name);
    if (receive === undefined) this.#remember(message.name, "failed");
    else this.#drop(receive);
    const process = this.#processes.get(message.process);
    if (process !== undefined) process.state.failed = true;
  }

  /**
   * What waits for its send, after the kernel told all it knows and `settleFailing` has nothing left. Returns how long the others must be
   * waited for, ms.
   */
  async settleReceives(settling: Settling): Promise<number> {
    let waitMs = 0;
    for (const message of [...this.#receives.values()]) {
      const receiver = this.#processOf(message);
      if (receiver === undefined) this.#drop(message);
      else waitMs = Math.max(waitMs, await this.#settleReceive(message, receiver, settling));
    }
    return waitMs;
  }

  async #settleReceive(message: Waiting, receiver: ProcessBuffer, settling: Settling): Promise<number> {
    const { name, time } = message;
    if (this.#sends.has(name)) return 0; // `settleFailing` decides both
    if (message.unseen === true && !settling.populated(receiver)) {
      this.#drop(message);
      return 0;
    }
    if ((await settling.senderOf(name)) !== undefined) {
      this.#drop(message);
      append(receiver, EVENT_KIND.receive, name, time);
      return 0;
    }
    if (!message.unix || !name.endsWith("/end")) {
      this.#drop(message); // its sender is not recorded here
      return 0;
    }
    const channel = name.slice(0, -"/end".length);
    const owner = await settling.ownerOf(channel, reverseChannel(channel));
    const sender = owner === undefined ? undefined : this.#processes.get(owner);
    if (sender === undefined) {
      this.#drop(message);
      return 0;
    }
    const alive = sender.state.live && settling.populated(sender);
    const leftMs = message.sinceMs + UNIX_END_MS - settling.nowMs;
    // It may be ending just now, or who waited for it is about to tell how it ended.
    if ((alive || sender.state.exitStatus === undefined) && leftMs > 0) return leftMs;
    this.#drop(message);
    if (!alive && sender.state.endedByFailure) return 0;
    append(sender, EVENT_KIND.send, name, time);
    append(receiver, EVENT_KIND.receive, name, time);
    return 0;
  }

  /**
   * Nothing is decided while the kernel's ring is full all the time: what then waits beyond the bound is of whoever fills it, and is given up.
   * Returns these processes: they have received what no log will say.
   */
  giveUp(): ProcessBuffer[] {
    const payers: ProcessBuffer[] = [];
    while (this.tooMany) {
      const counts = new Map<string, number>();
      for (const { process } of this.#receives.values()) counts.set(process, (counts.get(process) ?? 0) + 1);
      const [most] = [...counts].reduce((a, b) => (b[1] > a[1] ? b : a));
      for (const message of this.#receives.values()) if (message.process === most) this.#drop(message);
      const payer = this.#processes.get(most);
      if (payer !== undefined) payers.push(payer);
    }
    return payers;
  }

  /** A restore is about to make these connections again: what was known of their endings is undone. */
  restored(connections: readonly CutEntry[]): void {
    for (const { flags, local, remote } of connections) {
      const unix = (flags & RingFlag.UNIX) !== 0;
      for (const [sender, receiver] of [
        [local, remote],
        [remote, local],
      ] as const) {
        const name = `${channelName(unix, this.#bootId, sender, receiver)}/end`;
        this.#fate.delete(name);
        for (const held of [this.#sends, this.#receives]) if (held.delete(name)) this.changed = true;
      }
    }
  }

  /** Sends that are in the log although their receives may be to come: of sockets that exist when a collector starts. */
  known(names: Iterable<string>): void {
    for (const name of names) this.#remember(name, "sent");
  }
}

/** The process went on after the task that ended: it did something else, or ended well. Of those that are killed together one may be last by a moment. */
function outlived({ time }: HeldMessage, process: ProcessBuffer): boolean {
  return (
    process.state.exitStatus === 0 ||
    process.lastEndNs > time ||
    process.lastFailingEndNs > time + KILLED_TOGETHER_NS ||
    process.lastDataNs > time + STILL_AT_WORK_NS
  );
}

function append(process: ProcessBuffer, kind: number, name: string, time: number): void {
  const { columns } = process;
  columns.pushRange(kind, columns.addChannel(name), 0, 1, time, 0);
  process.app.touch();
}
