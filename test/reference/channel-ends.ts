/**
 * Who sends and who receives on a channel. A fact about the channel, so undone lines tell it too; an empty range
 * or a cut at offset 0 means nothing (interchange.md) and tells nothing.
 */
import { RecoveryLineError } from "../../src/model/errors.ts";
import type { Event } from "../../src/model/event.ts";

export interface ChannelEnds {
  readonly sender: Map<string, string>;
  readonly receiver: Map<string, string>;
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

export function channelEnds(events: readonly Event[]): ChannelEnds {
  const sender = new Map<string, string>();
  const receiver = new Map<string, string>();
  for (const event of events) {
    switch (event.type) {
      case "send":
      case "receive":
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
    }
  }
  return { sender, receiver };
}
