/**
 * Bytes in transit at a line: where each of them is, and how the images' socket queues must look so that TCP delivers them.
 *
 * A connection whose two ends both come back is put between the two positions of its processes: the sender's queue gets exactly
 * [what the receiver took, what the sender sent), the receiver's queue is emptied; what it held stands in the sender's queue. So the
 * kernels agree, whenever each of the two images was taken. Bytes are looked for in both images' queues, then in the payload log.
 */

import { RingFlag } from "../format/ring-layout.ts";
import { type ImageSocket, isEstablished } from "../images/criu/criu-sockets.ts";
import { withQueues } from "../images/criu/criu-tcp-image.ts";
import { isUnit } from "../log/complete-cut.ts";
import { assert } from "../model/assert.ts";
import type { CutDetail } from "../model/collector-answers.ts";
import { RecoveryLineError } from "../model/errors.ts";
import type { CutEntry } from "../model/event-source.ts";
import type { InTransitRange } from "../model/recovery-line.ts";

/** Where bytes come from that no image holds: the payload log (payload-store.ts). */
export interface PayloadSource {
  /** Bytes [begin, end) of the channel; undefined where one of them is not there. */
  read(channel: string, begin: number, end: number): Promise<Uint8Array | undefined>;
}

/** What the evidence says of connections that no image and no kernel holds any more. */
export interface EndedConnections {
  /** Who receives on the channel. */
  receiverOf(channel: string): string | undefined;
  /** Has the process used its receiving end of the channel, or the connection at all, by the point that it goes back to? */
  hadReceived(process: string, channel: string): boolean;
}

const NOTHING_KNOWN: EndedConnections = { receiverOf: () => undefined, hadReceived: () => false };

/** A process and the checkpoint it goes back to; without `sockets`: to its initial state, or not at all. */
export interface TransitProcess {
  readonly process: string;
  /** The cut at that point, connection by connection. */
  readonly connections: readonly CutDetail[];
  /** TCP connections in its image. */
  readonly sockets: readonly ImageSocket[];
}

/** One connection's end that comes back. */
export interface RestoredEnd {
  readonly process: string;
  readonly entry: CutDetail;
  readonly socket: ImageSocket;
}

/** One that does not: the process's cut names it, no image has its socket. */
type ClosedEnd = Pick<RestoredEnd, "process" | "entry">;

export interface EndPlan extends RestoredEnd {
  /** New contents of the image file `socket.file`; absent: as it is. */
  readonly image?: Uint8Array;
  /** What the capture is told about the connection that the restore makes. */
  readonly announcement: CutEntry;
}

export type BytesPlace = "sender's image" | "receiver's image" | "payload log" | "not needed" | "nowhere";

export interface PlacedRange extends Omit<InTransitRange, "to"> {
  readonly to: string | null;
  readonly place: BytesPlace;
  /** Why, one sentence; for what is nowhere or not needed. */
  readonly why?: string;
}

/** A connection that was being closed, whose ends' images are of moments that don't fit each other. */
export interface UnfitClosing {
  readonly channel: string;
  readonly from: string;
  readonly to: string;
  /** Whose image is of the later moment. */
  readonly later: string;
}

export interface TransitPlan {
  readonly ends: readonly EndPlan[];
  /** Sorted by channel, then begin. */
  readonly ranges: readonly PlacedRange[];
  /** Connections that come back without their other end: the program sees a reset. */
  readonly broken: readonly RestoredEnd[];
  /** Those among them whose other end nobody of the application has: outside, or in doubt. They are reset before anybody runs. */
  readonly resets: readonly RestoredEnd[];
  /** These processes can't come back together from these images. */
  readonly unfit: readonly UnfitClosing[];
}

/**
 * `inTransit`: as the line says. `continues`: who keeps going, or ended by itself, and does not come back. Throws RL_REJECTED where the images contradict the line, RL_REFUSED for a
 * connection that its cut does not name; ranges that are nowhere and connections that are unfit are returned, not thrown.
 */
export async function planTransit(
  processes: readonly TransitProcess[],
  inTransit: readonly InTransitRange[],
  continues: ReadonlySet<string>,
  payload?: PayloadSource,
  ended: EndedConnections = NOTHING_KNOWN,
): Promise<TransitPlan> {
  const bytes = inTransit.filter(({ channel }) => !isUnit(channel)); // openings and endings are socket state
  const planner = new Planner(processes, bytes, payload, ended);
  await planner.connections();
  planner.rest(bytes, continues);
  planner.assertPlaced(bytes, continues);
  planner.ranges.sort((a, b) =>
    a.channel === b.channel ? a.begin - b.begin : a.channel < b.channel ? -1 : 1,
  );
  const { ends, ranges, broken, resets, unfit } = planner;
  return { ends, ranges, broken, resets, unfit };
}

interface Bytes {
  readonly bytes: Uint8Array;
  readonly whole: boolean;
}

class Planner {
  readonly ends: EndPlan[] = [];
  readonly ranges: PlacedRange[] = [];
  readonly broken: RestoredEnd[] = [];
  readonly resets: RestoredEnd[] = [];
  readonly unfit: UnfitClosing[] = [];
  readonly #payload: PayloadSource | undefined;
  readonly #live: readonly RestoredEnd[];
  readonly #byReceives = new Map<string, RestoredEnd>();
  readonly #bySends = new Map<string, RestoredEnd>();
  /** Ends that the cuts name and that do not come back, by what they send. */
  readonly #closed = new Map<string, ClosedEnd>();
  /** Channels whose bytes have been placed. */
  readonly #done = new Set<string>();
  readonly #inTransit: readonly InTransitRange[];
  readonly #ended: EndedConnections;

  constructor(
    processes: readonly TransitProcess[],
    inTransit: readonly InTransitRange[],
    payload: PayloadSource | undefined,
    ended: EndedConnections,
  ) {
    this.#payload = payload;
    this.#inTransit = inTransit;
    this.#ended = ended;
    this.#live = processes.flatMap(liveEnds);
    for (const end of this.#live) {
      this.#byReceives.set(end.entry.receives, end);
      this.#bySends.set(end.entry.sends, end);
    }
    for (const { process, connections } of processes)
      for (const entry of connections)
        if (this.#bySends.get(entry.sends)?.process !== process)
          this.#closed.set(entry.sends, { process, entry });
  }

  async connections(): Promise<void> {
    for (const end of this.#live) {
      const other = this.#byReceives.get(end.entry.sends);
      if (other === undefined) await this.#alone(end);
      else if (end.entry.sends < end.entry.receives) await this.#pair(end, other);
    }
  }

  async #pair(one: RestoredEnd, other: RestoredEnd): Promise<void> {
    if (isEstablished(one.socket) && isEstablished(other.socket)) {
      const forth = await this.#bytesBetween(one, other);
      const back = await this.#bytesBetween(other, one);
      this.#rewrite(one, other, forth);
      this.#rewrite(other, one, back);
      return;
    }
    if (isHalfClosed(one, other)) return this.#half(one, other);
    if (isHalfClosed(other, one)) return this.#half(other, one);
    for (const [sender, receiver] of [
      [one, other],
      [other, one],
    ] as const) {
      const later = laterImage(sender, receiver)?.process;
      if (later !== undefined)
        this.unfit.push({ channel: sender.entry.sends, from: sender.process, to: receiver.process, later });
      this.#place(sender, receiver, sender.entry.sent, "sender's image");
      this.#keep(sender);
    }
  }

  /** One end with a sender's queue that reaches from what the other end took; its own queue is the other's to send again. */
  #rewrite(end: RestoredEnd, other: RestoredEnd, { bytes, whole }: Bytes): void {
    if (!whole) return;
    const { entry, socket } = end;
    this.ends.push({
      ...end,
      image: withQueues(socket.stream, { received: new Uint8Array(), unacknowledged: bytes }),
      announcement: announce(entry, entry.sent - other.entry.received),
    });
  }

  /** `done` has sent all it will ever send, and the other end's kernel has it, FIN included; the other direction is as open as any. */
  async #half(done: RestoredEnd, speaker: RestoredEnd): Promise<void> {
    this.#place(done, speaker, done.entry.sent, "receiver's image");
    const { bytes, whole } = await this.#bytesBetween(speaker, done);
    if (!whole) return;
    const { received } = speaker.socket.stream;
    this.ends.push({
      ...done,
      image: withQueues(done.socket.stream, { received: new Uint8Array(), unacknowledged: new Uint8Array() }),
      announcement: announce(done.entry, 0),
    });
    this.ends.push({
      ...speaker,
      image: withQueues(speaker.socket.stream, { received, unacknowledged: bytes }),
      announcement: announce(speaker.entry, bytes.length),
    });
  }

  /** As it is in the image. */
  #keep(end: RestoredEnd): void {
    this.ends.push({ ...end, announcement: announce(end.entry, end.socket.stream.unacknowledged.length) });
  }

  async #bytesBetween(sender: RestoredEnd, receiver: RestoredEnd): Promise<Bytes> {
    const { sends: channel, sent } = sender.entry;
    const begin = receiver.entry.received;
    requireConsistent(channel, sender.process, receiver.process, sent, begin);
    this.#done.add(channel);
    const bytes = new Uint8Array(sent - begin);
    const base = { channel, from: sender.process, to: receiver.process };
    const first = sent - sender.socket.stream.unacknowledged.length;
    const behind = begin + receiver.socket.stream.received.length;
    let whole = true;
    for (let at = begin; at < sent; ) {
      const inReceiver = at < behind;
      const end = inReceiver ? Math.min(behind, sent) : at < first ? Math.min(first, sent) : sent;
      const part = inReceiver
        ? receiver.socket.stream.received.subarray(at - begin, end - begin)
        : at >= first
          ? sender.socket.stream.unacknowledged.subarray(at - first, end - first)
          : await this.#payload?.read(channel, at, end);
      const place = inReceiver ? "receiver's image" : at >= first ? "sender's image" : "payload log";
      if (part?.length === end - at) {
        bytes.set(part, at - begin);
        this.ranges.push({ ...base, begin: at, end, place });
      } else {
        whole = false;
        this.ranges.push({ ...base, begin: at, end, place: "nowhere", why: NOT_HELD });
      }
      at = end;
    }
    return { bytes, whole };
  }

  /** Its other end does not come back. What that one had sent must be in our queue; what we sent nobody will read. */
  async #alone(end: RestoredEnd): Promise<void> {
    const { sends, receives, received } = end.entry;
    const other = this.#closed.get(receives) ?? this.#endedSender(end.entry);
    const got = end.socket.stream.received;
    if (other !== undefined) {
      requireConsistent(receives, other.process, end.process, other.entry.sent, received);
      this.#done.add(receives).add(sends);
      this.#place(end, other, end.entry.sent, "not needed", CLOSED);
      const held = received + got.length >= other.entry.sent;
      if (held) this.#place(other, end, other.entry.sent, "receiver's image");
      else if (!(await this.#fill(end, other))) return;
      if (held) this.#keep(end);
    } else {
      this.#keep(end);
      this.resets.push(end);
    }
    this.broken.push(end);
  }

  /** Who had sent what is in transit to this end, and has closed: cuts of today name no sockets that are no more, the line tells. */
  #endedSender(entry: CutDetail): ClosedEnd | undefined {
    const coming = this.#inTransit.filter(({ channel }) => channel === entry.receives);
    if (coming.length === 0) return undefined;
    const going = this.#inTransit.filter(({ channel }) => channel === entry.sends);
    const other: CutDetail = {
      flags: entry.flags,
      live: 0,
      told: 0,
      local: entry.remote,
      remote: entry.local,
      sent: Math.max(...coming.map(({ end }) => end)),
      received: Math.min(entry.sent, ...going.map(({ begin }) => begin)),
      seen: 0,
      unacknowledged: 0,
      queued: 0,
      sends: entry.receives,
      receives: entry.sends,
    };
    return { process: coming[0]!.from, entry: other };
  }

  /** The receiver's queue from the payload log: its sender is gone. */
  async #fill(end: RestoredEnd, other: { process: string; entry: CutDetail }): Promise<boolean> {
    const { receives, received, sent } = end.entry;
    const bytes = isEstablished(end.socket)
      ? await this.#payload?.read(receives, received, other.entry.sent)
      : undefined;
    if (bytes?.length !== other.entry.sent - received) {
      const why =
        this.#payload === undefined ? SENDER_GONE : `${SENDER_GONE}; the payload log lacks some of it`;
      this.#place(other, end, other.entry.sent, "nowhere", why);
      return false;
    }
    const unacknowledged = end.socket.stream.unacknowledged;
    this.#place(other, end, other.entry.sent, "payload log");
    this.ends.push({
      ...end,
      image: withQueues(end.socket.stream, { received: bytes, unacknowledged }),
      announcement: announce({ ...end.entry, sent }, unacknowledged.length),
    });
    return true;
  }

  #place(
    sender: { process: string; entry: CutDetail },
    receiver: { process: string; entry: CutDetail },
    end: number,
    place: BytesPlace,
    why?: string,
  ): void {
    const channel = sender.entry.sends;
    this.#done.add(channel);
    const begin = receiver.entry.received;
    if (begin >= end) return;
    const range = { channel, from: sender.process, to: receiver.process, begin, end, place };
    this.ranges.push(why === undefined ? range : { ...range, why });
  }

  /** What the line leaves in transit on channels without two ends that come back. */
  rest(inTransit: readonly InTransitRange[], continues: ReadonlySet<string>): void {
    for (const range of inTransit) {
      if (this.#done.has(range.channel) || this.#betweenSurvivors(range, continues)) continue;
      this.ranges.push({ ...range, ...this.#restOf(range, continues) });
    }
  }

  /** A byte that is in transit and has no place would be gone, and nobody told. */
  assertPlaced(inTransit: readonly InTransitRange[], continues: ReadonlySet<string>): void {
    for (const range of inTransit) {
      if (this.#betweenSurvivors(range, continues)) continue;
      let at = range.begin;
      const placed = this.ranges.filter(({ channel }) => channel === range.channel);
      for (const { begin, end } of placed.sort((a, b) => a.begin - b.begin))
        if (begin <= at) at = Math.max(at, end);
      assert(at >= range.end, `byte ${at} in transit on ${range.channel} has a place`);
    }
  }

  /** Sender and receiver go on, and so does what is between them. */
  #betweenSurvivors({ channel, from, to }: InTransitRange, continues: ReadonlySet<string>): boolean {
    const receiver = to ?? this.#closedReceiver(channel)?.process ?? this.#ended.receiverOf(channel);
    return (
      continues.has(from) &&
      !this.#byReceives.has(channel) &&
      (receiver === undefined || continues.has(receiver))
    );
  }

  #closedReceiver(channel: string): ClosedEnd | undefined {
    return [...this.#closed.values()].find(({ entry }) => entry.receives === channel);
  }

  #restOf(
    { channel, from, to: known, end }: InTransitRange,
    continues: ReadonlySet<string>,
  ): { place: BytesPlace; why?: string } {
    const to = known ?? this.#ended.receiverOf(channel) ?? null;
    const receiver = this.#closedReceiver(channel);
    const live = this.#byReceives.get(channel);
    if (from === to) return { place: "not needed", why: "both ends are inside one process and its image" };
    if (live !== undefined) {
      const held = live.entry.received + live.socket.stream.received.length >= end;
      return held ? { place: "receiver's image" } : { place: "nowhere", why: SENDER_GONE };
    }
    if (receiver !== undefined && receiver.entry.live === 0) return { place: "not needed", why: CLOSED };
    if (receiver !== undefined)
      return { place: "nowhere", why: `the connection of ${receiver.process} breaks` };
    if (to !== null && (continues.has(to) || this.#ended.hadReceived(to, channel)))
      return { place: "not needed", why: CLOSED };
    if (to === null) return { place: "nowhere", why: "nobody knows who receives it" };
    return { place: "nowhere", why: `${to} goes back to before it had that connection` };
  }
}

const NOT_HELD = "neither image's queue nor a payload log holds it";
const CLOSED = "its receiver has closed the connection without reading it";
const SENDER_GONE = "its sender has closed the connection, and the receiver's image does not hold it";

/** The live TCP connections of a process, each with its socket in the image: both positions of the process are the same numbers. */
function liveEnds({ process, connections, sockets }: TransitProcess): RestoredEnd[] {
  const entries = connections.filter(({ live, flags }) => live === 1 && (flags & RingFlag.UNIX) === 0);
  return sockets.flatMap((socket) => {
    const found = entries.filter((entry) => isSocketOf(entry, socket));
    if (found.length === 1) return [{ process, entry: found[0]!, socket }];
    if (socket.state !== TCP_CLOSE) throw unknownSocket(process, socket, found.length);
    return []; // reset already: nothing comes back
  });
}

const TCP_CLOSE = 7;

function isSocketOf({ local, remote, sent, received }: CutEntry, { stream }: ImageSocket): boolean {
  return sequenceOf(local, sent) === stream.sends && sequenceOf(remote, received) === stream.takes;
}

/** One half is over for both ends; the other one is open for both. */
function isHalfClosed(done: RestoredEnd, speaker: RestoredEnd): boolean {
  const { socket, entry } = done;
  const over = socket.finAcknowledged && socket.stream.unacknowledged.length === 0;
  const open = !speaker.socket.finSent && !socket.finReceived;
  const heard = speaker.entry.received + speaker.socket.stream.received.length === entry.sent;
  return over && open && heard && speaker.socket.finReceived;
}

/** The first byte of data follows the SYN. */
function sequenceOf(initial: number, offset: number): number {
  return Number(BigInt.asUintN(32, BigInt(initial) + 1n + BigInt(offset)));
}

function announce(entry: CutDetail, unacknowledged: number): CutEntry {
  const { flags, local, remote, sent, received } = entry;
  // An image of an older version says nothing of what was told and seen.
  const { told = 0, seen = received } = entry as Partial<CutDetail>;
  return { flags, live: 1, told, local, remote, sent, received, seen, unacknowledged, queued: 0 };
}

/** The line's own promise, looked at once more before anything happens: nobody has received what is not sent. */
function requireConsistent(channel: string, from: string, to: string, sent: number, received: number): void {
  if (received <= sent) return;
  throw new RecoveryLineError(
    "RL_REJECTED",
    `the line is inconsistent on ${channel}: ${to} has received ${received} bytes and ${from} has sent ${sent}`,
    "Nothing was killed or restored. Please report this.",
  );
}

/** A connection that is being closed can't be put between two other positions: its images must fit as they are. Undefined: they do. Throws RL_REJECTED. */
function laterImage(sender: RestoredEnd, receiver: RestoredEnd): RestoredEnd | undefined {
  const first = sender.entry.sent - sender.socket.stream.unacknowledged.length;
  const behind = receiver.entry.received + receiver.socket.stream.received.length;
  requireConsistent(
    sender.entry.sends,
    sender.process,
    receiver.process,
    sender.entry.sent,
    receiver.entry.received,
  );
  const heardMore = behind > sender.entry.sent || (receiver.socket.finReceived && !sender.socket.finSent);
  if (heardMore) return receiver;
  const toldMore = first > behind || (sender.socket.finAcknowledged && !receiver.socket.finReceived);
  return toldMore ? sender : undefined;
}

function unknownSocket(process: string, { file, remote }: ImageSocket, found: number): RecoveryLineError {
  return new RecoveryLineError(
    "RL_REFUSED",
    `${process}: the image's connection to ${remote.address}:${remote.port} (${file}) ${found === 0 ? "is not in its cut" : "is in its cut twice"}`,
    "It can't be restored under its name. Nothing was killed or restored.",
  );
}
