/**
 * What a collector's cut must name besides the connections that exist: its process's channels that have ended, at the last offset the log has.
 *
 * Each is named in the first cut after its last use, and may be left out by later ones
 *
 *   data    once both ends stand in covering cuts at the same offset. Then every line that keeps either of these cuts and does not reach
 *           the other goes below it, and who goes below a cut has read all newer ones of its process, which name what it used after.
 *           Bytes from or to somebody who is not recorded here are named for ever: nobody else says that nobody sent them.
 *   units   `<channel>/open`, `<channel>/end` of captured connections: the send after it stood in one covering cut, whether it is received or
 *           not, since they are no bytes that anybody replays; the receive once its send stands in one. It is never in the log without it.
 *
 * A channel that is outside needs no name at all.
 */
import type { Cut } from "../model/event.ts";

type Offsets = ReadonlyMap<string, number>;

/** What is known of one process since its last covering cut. */
export interface ChannelAccount {
  readonly sent: Offsets;
  readonly received: Offsets;
  readonly seen: Offsets;
  readonly outside: ReadonlySet<string>;
  /** The last covering cut. */
  readonly stated: Cut | undefined;
  /** Ends of this process, see `endOf`, whose other ends stood in covering cuts that left them out since. */
  readonly settled: Set<string>;
}

const UNIT = /^(?:tcp:[0-9a-f]{8}-[0-9a-f]{8}|unix:[0-9a-f]{8}:[0-9]+-[0-9]+)\/(?:open|end)$/;

/** Opening or ending of a captured connection: socket state, not bytes. */
export function isUnit(channel: string): boolean {
  return UNIT.test(channel);
}

/** The channel that a unit's opening or ending is of; any other channel itself. */
export function channelOfUnit(channel: string): string {
  return isUnit(channel) ? channel.slice(0, channel.lastIndexOf("/")) : channel;
}

/** The other direction of a captured channel (model/channel-names.ts). */
export function reverseChannel(channel: string): string {
  const at = channel.lastIndexOf(":") + 1;
  const [sender, receiver] = channel.slice(at).split("-");
  return `${channel.slice(0, at)}${receiver}-${sender}`;
}

function endOf(side: "sent" | "received", channel: string): string {
  return `${side === "sent" ? ">" : "<"}${channel}`;
}

/** `cut` with what it must name besides; `others`: the accounts of all processes of the log, `own` among them. */
export function completeCut(cut: Cut, own: ChannelAccount, others: readonly ChannelAccount[]): Cut {
  const sent = complete("sent", cut, own, others);
  const received = complete("received", cut, own, others);
  const seen = new Map(cut.seen);
  for (const [channel, offset] of own.seen) {
    const reached = Math.max(seen.get(channel) ?? -1, received.get(channel) ?? -1);
    if (reached >= offset || own.outside.has(channel)) continue;
    const stated = own.stated?.seen?.get(channel) ?? own.stated?.received.get(channel) ?? -1;
    const sender = others.some((other) => (other.stated?.sent.get(channel) ?? -1) >= offset);
    const known = stated >= offset && (sender || own.settled.has(endOf("received", channel)));
    if (!known || received.has(channel)) seen.set(channel, offset);
  }
  return { ...cut, sent, received, ...(seen.size === 0 ? {} : { seen }) };
}

function complete(
  side: "sent" | "received",
  cut: Cut,
  own: ChannelAccount,
  others: readonly ChannelAccount[],
): Map<string, number> {
  const named = new Map(cut[side]);
  for (const [channel, offset] of own[side]) {
    const said = named.get(channel);
    if ((said ?? -1) >= offset || (said === undefined && own.outside.has(channel))) continue;
    if (said === undefined && mayLeaveOut(side, channel, offset, own, others))
      leaveOut(side, channel, others);
    else named.set(channel, offset);
  }
  return named;
}

function mayLeaveOut(
  side: "sent" | "received",
  channel: string,
  offset: number,
  own: ChannelAccount,
  others: readonly ChannelAccount[],
): boolean {
  if (!((own.stated?.[side].get(channel) ?? -1) >= offset)) return false;
  if (side === "sent" && isUnit(channel)) return true;
  if (own.settled.has(endOf(side, channel))) return true;
  const other = side === "sent" ? "received" : "sent";
  return others.some(({ stated }) => (stated?.[other].get(channel) ?? -1) === offset);
}

/** The other end can't see any more that this one stood in a covering cut. */
function leaveOut(side: "sent" | "received", channel: string, others: readonly ChannelAccount[]): void {
  const other = side === "sent" ? "received" : "sent";
  for (const account of others) if (account[other].has(channel)) account.settled.add(endOf(other, channel));
}

/** Has it sent on the channel? */
export function sendsOn({ sent }: ChannelAccount, channel: string): boolean {
  return sent.has(channel);
}

/** Does its end of the connection send on `channel`, and receive on `reverse`? */
export function ownsEnd({ sent, received }: ChannelAccount, channel: string, reverse: string): boolean {
  return ["", "/open", "/end"].some(
    (unit) => sent.has(`${channel}${unit}`) || received.has(`${reverse}${unit}`),
  );
}
