/**
 * What single lines can't show: checkpoint indices rise along each effective history, a rollback names a checkpoint of it (or one
 * that a gap may hide), a channel has one sender and one receiver, and one that is outside for a process has no other, unless that was
 * attached later.
 *
 * Memory: the checkpoints in effect and one entry a channel. A rollback drops checkpoints for good, so all of them together cost
 * no more than the checkpoints did.
 */
import type { CheckpointEvent, Event, RollbackEvent } from "../model/event.ts";
import { ATTACHED } from "../model/gap-reasons.ts";
import { badInput, type InputPlace, quoted } from "./interchange-error.ts";

interface History {
  readonly process: string;
  /** Checkpoint indices in effect, rising. */
  readonly checkpoints: number[];
  /** Those after which, and before the next one, lines are missing; 0 = the initial state. Rising. */
  readonly gapAfter: number[];
  /** It was recorded from a later moment on: its events make `outside` lines of its peers void. */
  attached: boolean;
}

/** Who first sent, received (or looked), and said that the channel is outside, and the lines where they did. */
interface ChannelEnds {
  send: End | undefined;
  receive: End | undefined;
  outside: End | undefined;
}

interface End {
  readonly history: History;
  readonly place: InputPlace;
}

export class HistoryCheck {
  readonly #histories = new Map<string, History>();
  readonly #channels = new Map<string, ChannelEnds>();

  get processCount(): number {
    return this.#histories.size;
  }

  get channelCount(): number {
    return this.#channels.size;
  }

  /** Takes one event. Throws RL_BAD_INPUT or RL_CONTRADICTION; what was taken before still stands. */
  add(event: Event, place: InputPlace): void {
    const history = this.#history(event.process);
    switch (event.type) {
      case "send":
      case "receive":
        this.#claim(history, event.channel, event.type, event.begin, event.end, place);
        break;
      case "peek":
        this.#claim(history, event.channel, "receive", event.begin, event.end, place);
        break;
      case "outside":
        this.#outside(history, event.channel, place);
        break;
      case "page-copy":
      case "page-invalidate": {
        const side = event.role === "source" ? "send" : "receive";
        this.#claim(history, event.channel, side, event.begin, event.end, place);
        break;
      }
      case "checkpoint":
        this.#checkpoint(history, event, place);
        break;
      case "gap": {
        history.attached ||= event.reason === ATTACHED && history.checkpoints.length === 0;
        const newest = history.checkpoints.at(-1) ?? 0;
        if (history.gapAfter.at(-1) !== newest) history.gapAfter.push(newest);
        break;
      }
      case "rollback":
        rollBack(history, event, place);
        break;
    }
  }

  #history(process: string): History {
    let history = this.#histories.get(process);
    if (history === undefined) {
      history = { process, checkpoints: [], gapAfter: [], attached: false };
      this.#histories.set(process, history);
    }
    return history;
  }

  #checkpoint(history: History, event: CheckpointEvent, place: InputPlace): void {
    const newest = history.checkpoints.at(-1) ?? 0;
    if (event.checkpoint <= newest)
      throw badInput(
        place,
        "checkpoint",
        `${event.checkpoint} does not rise above ${newest}, the newest of process ${quoted(history.process)}`,
      );
    history.checkpoints.push(event.checkpoint);
    for (const [channel, offset] of event.cut?.sent ?? [])
      this.#claim(history, channel, "send", 0, offset, place);
    for (const [channel, offset] of event.cut?.received ?? [])
      this.#claim(history, channel, "receive", 0, offset, place);
    for (const [channel, offset] of event.cut?.seen ?? [])
      this.#claim(history, channel, "receive", 0, offset, place);
    for (const channel of event.cut?.outside ?? []) this.#outside(history, channel, place);
  }

  #ends(channel: string): ChannelEnds {
    let ends = this.#channels.get(channel);
    if (ends === undefined) {
      ends = { send: undefined, receive: undefined, outside: undefined };
      this.#channels.set(channel, ends);
    }
    return ends;
  }

  #outside(history: History, channel: string, place: InputPlace): void {
    const ends = this.#ends(channel);
    for (const holder of [ends.outside, ends.send, ends.receive])
      if (holder !== undefined && holder.history !== history) {
        if (holder !== ends.outside && holder.history.attached) return;
        const here = `process ${quoted(history.process)} says that channel ${quoted(channel)} is outside`;
        throw notOutside(place, here, holder, holder === ends.outside ? "says so, too" : "is at it");
      }
    ends.outside ??= { history, place };
  }

  /** Empty ranges mean nothing: they claim nothing. */
  #claim(
    history: History,
    channel: string,
    side: "send" | "receive",
    begin: number,
    end: number,
    place: InputPlace,
  ): void {
    if (begin === end) return;
    const ends = this.#ends(channel);
    const { outside } = ends;
    if (outside !== undefined && outside.history !== history && history.attached) ends.outside = undefined;
    else if (outside !== undefined && outside.history !== history) {
      const here = `process ${quoted(history.process)} ${side}s [${begin}, ${end}) on channel ${quoted(channel)}`;
      throw notOutside(place, here, outside, "says that it is outside");
    }
    const holder = ends[side];
    if (holder === undefined) ends[side] = { history, place };
    else if (holder.history !== history) throw secondEnd(holder, history, channel, side, begin, end, place);
  }
}

/** Two processes at a channel that is outside for one of them. */
function notOutside(place: InputPlace, here: string, other: End, there: string): Error {
  const { file, line } = other.place;
  const at = line === 0 ? file : `${file}, line ${line}`;
  return badInput(
    place,
    "channel",
    `${here}, but process ${quoted(other.history.process)} ${there} (${at}): outside is who is no part of the application`,
    "RL_CONTRADICTION",
  );
}

function secondEnd(
  holder: End,
  history: History,
  channel: string,
  side: "send" | "receive",
  begin: number,
  end: number,
  place: InputPlace,
): Error {
  const first = holder.place.line === 0 ? holder.place.file : `line ${holder.place.line}`;
  return badInput(
    place,
    "channel",
    `process ${quoted(history.process)} ${side}s [${begin}, ${end}) on channel ${quoted(channel)}, ` +
      `but process ${quoted(holder.history.process)} ${side}s on it too (${first}): one channel has one ${side === "send" ? "sender" : "receiver"}`,
    "RL_CONTRADICTION",
  );
}

function rollBack(history: History, event: RollbackEvent, place: InputPlace): void {
  const { checkpoints, gapAfter } = history;
  while ((checkpoints.at(-1) ?? 0) > event.checkpoint) checkpoints.pop();
  const base = checkpoints.at(-1) ?? 0;
  while ((gapAfter.at(-1) ?? -1) > base) gapAfter.pop();
  if (base === event.checkpoint) {
    if (gapAfter.at(-1) === base) gapAfter.pop();
  } else if (gapAfter.at(-1) !== base)
    throw badInput(
      place,
      "checkpoint",
      `process ${quoted(history.process)} has no checkpoint ${event.checkpoint} in effect to roll back to`,
    );
}
