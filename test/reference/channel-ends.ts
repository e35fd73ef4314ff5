/**
 * Who sends and who receives on a channel. A fact about the channel, so undone lines tell it too. An empty range means
 * nothing (interchange.md) and tells nothing. A cut at offset 0 names a process that holds the end and moved no byte yet:
 * it counts as long as nobody else is named. A peek is at the receiving end. Who says that a channel is outside is the only one at it.
 */
import { RecoveryLineError } from "../../src/model/errors.ts";
import type { CheckpointEvent, Event } from "../../src/model/event.ts";

export interface ChannelEnds {
  readonly sender: Map<string, string>;
  readonly receiver: Map<string, string>;
  readonly outside: Map<string, string>;
}

function claim(end: Map<string, string>, channel: string, process: string, what: string): void {
  const owner = end.get(channel);
  if (owner === undefined) end.set(channel, process);
  else if (owner !== process)
    throw new RecoveryLineError("RL_CONTRADICTION", `${channel}: ${what} ${owner} and ${process}`);
}

export function isSend(event: Event): boolean {
  return (
    event.type === "send" ||
    ((event.type === "page-copy" || event.type === "page-invalidate") && event.role === "source")
  );
}

function namedBy({ cut }: CheckpointEvent, side: "sent" | "received"): string[] {
  return [...(cut?.[side].keys() ?? []), ...(side === "received" ? (cut?.seen?.keys() ?? []) : [])];
}

/** Ends that hold a channel at offset 0, where no event and no other cut names an end. */
function idleEnds(events: readonly Event[], side: "sent" | "received", known: Map<string, string>): void {
  const holders = new Map<string, Set<string>>();
  for (const event of events)
    if (event.type === "checkpoint")
      for (const channel of namedBy(event, side))
        holders.set(channel, (holders.get(channel) ?? new Set()).add(event.process));
  for (const [channel, processes] of holders) {
    const [only] = processes;
    if (!known.has(channel) && processes.size === 1) known.set(channel, only!);
  }
}

export function channelEnds(events: readonly Event[]): ChannelEnds {
  const sender = new Map<string, string>();
  const receiver = new Map<string, string>();
  const outside = new Map<string, string>();
  for (const event of events) {
    switch (event.type) {
      case "outside":
        claim(outside, event.channel, event.process, "outside for");
        break;
      case "send":
      case "receive":
      case "peek":
      case "page-copy":
      case "page-invalidate":
        if (event.begin === event.end) break;
        if (isSend(event)) claim(sender, event.channel, event.process, "senders");
        else claim(receiver, event.channel, event.process, "receivers");
        break;
      case "checkpoint":
        for (const [channel, end] of event.cut?.sent ?? [])
          if (end > 0) claim(sender, channel, event.process, "senders");
        for (const [channel, end] of event.cut?.received ?? [])
          if (end > 0) claim(receiver, channel, event.process, "receivers");
        for (const [channel, end] of event.cut?.seen ?? [])
          if (end > 0) claim(receiver, channel, event.process, "receivers");
    }
  }
  for (const [channel, process] of outside)
    for (const end of [sender, receiver])
      if (end.has(channel)) claim(end, channel, process, "outside for one of");
  idleEnds(events, "sent", sender);
  idleEnds(events, "received", receiver);
  for (const [channel, process] of outside)
    for (const end of [sender, receiver]) if (end.get(channel) !== process) end.delete(channel);
  return { sender, receiver, outside };
}
