/** Cut vectors: connections at one instant → offsets per channel. */
import { RingFlag } from "../format/ring-layout.ts";
import { channelName } from "../model/channel-names.ts";
import type { CutDetail } from "../model/collector-answers.ts";
import type { Cut } from "../model/event.ts";
import type { CutEntry } from "../model/event-source.ts";

/**
 * Both directions of every connection that exists; a channel at 0 is not named (model/event.ts). Connections that have ended, openings and
 * endings are named when the checkpoint is appended, from the log (log/cut-coverage.ts).
 */
export function cutOf(
  entries: readonly CutEntry[],
  bootId: string,
): { readonly cut: Cut; readonly details: readonly CutDetail[] } {
  const sent = new Map<string, number>();
  const received = new Map<string, number>();
  const seen = new Map<string, number>();
  const details = entries.map((entry) => {
    const unix = (entry.flags & RingFlag.UNIX) !== 0;
    const sends = channelName(unix, bootId, entry.local, entry.remote);
    const receives = channelName(unix, bootId, entry.remote, entry.local);
    raise(sent, sends, entry.sent);
    raise(received, receives, entry.received);
    if (entry.seen > entry.received) raise(seen, receives, entry.seen);
    return { ...entry, sends, receives };
  });
  return { cut: { sent, received, ...(seen.size === 0 ? {} : { seen }) }, details };
}

/** A connection may be told twice, by two descriptors: offsets only rise. */
function raise(offsets: Map<string, number>, channel: string, offset: number): void {
  if (offset > (offsets.get(channel) ?? 0)) offsets.set(channel, offset);
}
