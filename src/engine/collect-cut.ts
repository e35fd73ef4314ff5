/** Cut vectors: connections at one instant → offsets per channel. */
import { RingFlag } from "../format/ring-layout.ts";
import type { Cut } from "../model/event.ts";
import type { CutEntry } from "../ring/event-source.ts";
import { channelName } from "./channel-names.ts";

/** One connection with the names of its two directions; what a restart driver needs of it. */
export interface CutDetail extends CutEntry {
  readonly sends: string;
  readonly receives: string;
}

/**
 * The kernel's connections, and those that the process had closed before the image it was restored from: what the kernel does not
 * name any more stands at its last offsets for ever.
 */
export function withCarried(entries: readonly CutEntry[], carried: readonly CutEntry[]): readonly CutEntry[] {
  if (carried.length === 0) return entries;
  const known = new Set(entries.map(nameOf));
  const closed = carried.filter((entry) => !known.has(nameOf(entry)));
  return [
    ...entries,
    // What was closed in the image has no socket that could come back; of the others the kernel may not know yet.
    ...closed.map((entry) => ({ ...entry, live: 0, gone: 1 - entry.live, unacknowledged: 0, queued: 0 })),
  ];
}

function nameOf({ flags, local, remote }: CutEntry): string {
  return `${flags & RingFlag.UNIX}:${local}:${remote}`;
}

/** Both directions of every connection; a channel at 0 is not named (model/event.ts). */
export function cutOf(
  entries: readonly CutEntry[],
  bootId: string,
): { readonly cut: Cut; readonly details: readonly CutDetail[] } {
  const sent = new Map<string, number>();
  const received = new Map<string, number>();
  const details = entries.map((entry) => {
    const unix = (entry.flags & RingFlag.UNIX) !== 0;
    const sends = channelName(unix, bootId, entry.local, entry.remote);
    const receives = channelName(unix, bootId, entry.remote, entry.local);
    raise(sent, sends, entry.sent);
    raise(received, receives, entry.received);
    return { ...entry, sends, receives };
  });
  return { cut: { sent, received }, details };
}

/** A connection may be told twice, live and closed: offsets only rise. */
function raise(offsets: Map<string, number>, channel: string, offset: number): void {
  if (offset > (offsets.get(channel) ?? 0)) offsets.set(channel, offset);
}
