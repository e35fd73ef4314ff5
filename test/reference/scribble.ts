/**
 * Evidence that no execution needs to have: holes, overlaps, receives of what nobody sent, channels with one known end,
 * cuts that know more than the events. The contracts give every such file one answer, and this is where readings differ.
 */
import type { Cut, Event } from "../../src/model/event.ts";
import { appendLine } from "./history.ts";
import type { Random } from "./random.ts";

export interface Scribble {
  readonly processes: number;
  readonly lines: number;
  /** Cuts that fall along a history: contradicting evidence, but importable. */
  readonly fallingCuts: boolean;
  /** Channels to and from somebody who is no process, and lines that say so (or don't); peeks, and cuts that have seen. */
  readonly outside: boolean;
  readonly looks: boolean;
}

export function scribble(random: Random, setting: Scribble): Event[] {
  const names = Array.from({ length: setting.processes }, (_, k) => `p${k}`);
  const histories = new Map<string, Event[]>(names.map((name) => [name, []]));
  const ends = names.flatMap((from) => names.map((to) => ({ from, to, channel: `${from}>${to}` })));
  if (setting.outside)
    for (const name of names)
      ends.push({ from: name, to: "w", channel: `${name}>w` }, { from: "w", to: name, channel: `w>${name}` });
  // Few channels, so that lines meet.
  const channels = random.shuffle(ends).slice(0, 1 + random.below(setting.processes + 1));
  const events: Event[] = [];

  const range = () => {
    const begin = random.below(6);
    return { begin, end: Math.min(8, begin + random.below(4)) };
  };
  const cut = (process: string): Cut => {
    const past = setting.fallingCuts ? [] : histories.get(process)!;
    const offsets = (side: "sent" | "received") => {
      const result = new Map<string, number>();
      for (const { from, to, channel } of channels) {
        if ((side === "sent" ? from : to) !== process) continue;
        let least = 0;
        for (const event of past)
          if (event.type === "checkpoint") least = Math.max(least, event.cut?.[side].get(channel) ?? 0);
        if (least > 0 || random.oneIn(2)) result.set(channel, Math.max(least, random.below(8)));
      }
      return result;
    };
    const received = offsets("received");
    if (!setting.looks || random.oneIn(3)) return { sent: offsets("sent"), received };
    const seen = new Map<string, number>();
    for (const { to, channel } of channels)
      if (to === process && random.oneIn(2))
        seen.set(channel, Math.max(received.get(channel) ?? 0, seenSoFar(past, channel), random.below(9)));
    return { sent: offsets("sent"), received, seen };
  };
  const line = (process: string): Event => {
    const dice = random.below(20);
    const mine = channels.filter(({ from, to }) => from === process || to === process);
    if (dice < 10 && mine.length > 0) {
      const { from, channel } = random.pick(mine);
      const isSource =
        from === process &&
        (random.oneIn(2) || !mine.some((end) => end.to === process && end.channel === channel));
      const kind = random.below(5);
      if (setting.looks && !isSource && random.oneIn(3))
        return { type: "peek", process, channel, ...range() };
      if (kind > 1) return { type: isSource ? "send" : "receive", process, channel, ...range() };
      const type = kind === 0 ? "page-copy" : "page-invalidate";
      return { type, process, page: 1, role: isSource ? "source" : "destination", channel, ...range() };
    }
    const own = mine.filter(({ from, to }) => ["w", process].includes(from) && ["w", process].includes(to));
    if (dice < 12 && setting.outside && own.length > 0)
      return { type: "outside", process, channel: random.pick(own).channel };
    if (dice < 15) {
      const checkpoints = histories.get(process)!.filter((event) => event.type === "checkpoint");
      const checkpoint = (checkpoints.at(-1)?.checkpoint ?? 0) + 1;
      const withCut = random.oneIn(2) ? { cut: cut(process) } : {};
      return { type: "checkpoint", process, checkpoint, usable: !random.oneIn(4), ...withCut };
    }
    if (dice < 17) return { type: "stable", process };
    if (dice < 18) return random.oneIn(2) ? { type: "gap", process } : { type: "gap", process, lost: 2 };
    if (dice < 19) {
      const known = histories
        .get(process)!
        .flatMap((event) => (event.type === "checkpoint" ? [event.checkpoint] : []));
      return { type: "rollback", process, checkpoint: random.pick([0, ...known]) };
    }
    return { type: "page-fault", process, page: "x", access: "write" };
  };

  for (let n = 0; n < setting.lines; n++) {
    const process = random.pick(names);
    const event = line(process);
    appendLine(histories.get(process)!, event);
    events.push(event);
  }
  return events;
}

function seenSoFar(past: readonly Event[], channel: string): number {
  let least = 0;
  for (const event of past)
    if (event.type === "checkpoint") least = Math.max(least, event.cut?.seen?.get(channel) ?? 0);
  return least;
}
