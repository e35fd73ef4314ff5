/** What a process's log says at its start: channels, messages sent, checkpoints, and the steps to replay. */
import type { ChannelRole, CheckpointRecord, LogRecord } from "./log-format.ts";
import type { PlacedRecord } from "./log-scan.ts";
import { SentMessages } from "./out-channel.ts";

/** One step of the program that the log holds. A SEND stands without its payload. */
export type HistoryStep =
  | { readonly kind: "send"; readonly channel: number; readonly sequence: number; readonly sum: number }
  | { readonly kind: "deliver"; readonly channel: number; readonly sequence: number; readonly sum: number }
  | { readonly kind: "checkpoint"; readonly checkpoint: number }
  | { readonly kind: "value"; readonly payload: Buffer };

export interface ChannelEnd {
  readonly number: number;
  readonly role: ChannelRole;
  readonly peer: string;
}

/** Takes the records one by one; keeps the steps since each of the newest checkpoints, so that an older one can be the base. */
export class History {
  incarnation = 0;
  readonly channels: ChannelEnd[] = [];
  readonly #sent = new Map<string, SentMessages>();
  /** Oldest first; the initial state is not among them. */
  readonly checkpoints: CheckpointRecord[] = [];
  readonly #byPeer = new Map<string, ChannelEnd>();
  readonly #steps: HistoryStep[] = [];
  /** Number of the first step after each checkpoint. */
  readonly #stepAfter: number[] = [];

  take({ record, end }: PlacedRecord): void {
    this.#know(record, end);
    const step = stepOf(record);
    if (step !== undefined) this.#steps.push(step);
    if (record.kind !== "checkpoint") return;
    this.checkpoints.push(record);
    this.#stepAfter.push(this.#steps.length);
  }

  #know(record: LogRecord, end: number): void {
    if (record.kind === "join") this.incarnation = record.incarnation;
    if (record.kind === "channel") this.addChannel(record);
    if (record.kind === "send")
      this.sentTo(this.channels[record.channel]!.peer).push(end, record.payload.length, record.sum);
  }

  addChannel({ number, role, peer }: ChannelEnd): void {
    const end = { number, role, peer };
    this.channels.push(end);
    this.#byPeer.set(`${role} ${peer}`, end);
  }

  /** Everything the log holds of the channel to a peer, and grows with it. */
  sentTo(peer: string): SentMessages {
    const known = this.#sent.get(peer);
    if (known !== undefined) return known;
    const sent = new SentMessages();
    this.#sent.set(peer, sent);
    return sent;
  }

  channel(role: ChannelRole, peer: string): ChannelEnd | undefined {
    return this.#byPeer.get(`${role} ${peer}`);
  }

  /** The steps after checkpoint number `at` of the list; -1: all. */
  stepsAfter(at: number): HistoryStep[] {
    return this.#steps.slice(at < 0 ? 0 : this.#stepAfter[at]!);
  }
}

function stepOf(record: LogRecord): HistoryStep | undefined {
  switch (record.kind) {
    case "send":
    case "deliver":
      return { kind: record.kind, channel: record.channel, sequence: record.sequence, sum: record.sum };
    case "checkpoint":
      return { kind: "checkpoint", checkpoint: record.checkpoint };
    case "value":
      return { kind: "value", payload: Buffer.from(record.payload) };
    default:
      return undefined;
  }
}
