/**
 * Small random inputs for the laws of theory.md. `chaos` breaks every rule that evidence may break: ranges out of order, repeated,
 * never sent, cuts that fall, gaps, rollbacks. `execution` is a true run over FIFO byte channels, from which evidence can be lost.
 */
import fc from "fast-check";
import { EvidenceBuilder } from "../../src/graph/evidence/evidence-builder.ts";
import type { Cut, Event } from "../../src/model/event.ts";
import type { Evidence } from "../../src/model/evidence-layout.ts";

export const PROCESSES = ["a", "b", "c"] as const;

/** One choice of the generator, turned into an event by `toEvents`; numbers are reduced to what is possible there. */
interface Step {
  readonly process: number;
  readonly peer: number;
  readonly kind: number;
  readonly x: number;
  readonly y: number;
}

const step: fc.Arbitrary<Step> = fc.record({
  process: fc.nat(PROCESSES.length - 1),
  peer: fc.nat(PROCESSES.length - 1),
  kind: fc.nat(99),
  x: fc.nat(9),
  y: fc.nat(4),
});

/** Channel "ab" goes from a to b. */
function channelName(from: string, to: string): string {
  return `${from}${to}`;
}

/** Any events that the gateway lets through: one sender and one receiver a channel, checkpoint indices rise, rollbacks have a target. */
export function chaos(maxLength = 24): fc.Arbitrary<Event[]> {
  return fc.array(step, { maxLength }).map((steps) => {
    const checkpoints = new Map<string, number[]>();
    return steps.map((s) => chaoticEvent(s, checkpoints));
  });
}

function chaoticEvent({ process: p, peer: q, kind, x, y }: Step, checkpoints: Map<string, number[]>): Event {
  const process = PROCESSES[p] as string;
  const peer = PROCESSES[q] as string;
  const held = checkpoints.get(process) ?? [];
  checkpoints.set(process, held);
  const sends = { process, channel: channelName(process, peer), begin: x, end: x + y };
  const receives = { process, channel: channelName(peer, process), begin: x, end: x + y };
  if (kind < 24) return { type: "send", ...sends };
  if (kind < 46) return { type: "receive", ...receives };
  if (kind < 49) return { type: "peek", ...receives };
  if (kind < 51) return { type: "send", ...sends, channel: channelName(process, "w") };
  if (kind < 54) return { type: x > 6 ? "peek" : "receive", ...receives, channel: channelName("w", process) };
  if (kind < 56)
    return {
      type: "outside",
      process,
      channel: x > 3 ? channelName("w", process) : channelName(process, x > 1 ? "w" : process),
    };
  if (kind < 59) return { type: "page-copy", role: "source", page: x, ...sends };
  if (kind < 62) return { type: "page-copy", role: "destination", page: x, ...receives };
  if (kind < 65) return { type: "page-invalidate", role: "source", page: x, ...sends };
  if (kind < 68) return { type: "page-invalidate", role: "destination", page: x, ...receives };
  if (kind < 70) return { type: "page-fault", process, page: x, access: "read" };
  if (kind < 85) {
    const checkpoint = (held.at(-1) ?? 0) + 1 + (y > 2 ? 1 : 0);
    held.push(checkpoint);
    const cut: Cut = {
      sent: new Map([[channelName(process, peer), x]]),
      received: new Map([[channelName(peer, process), x > 5 ? x - y : y]]),
      ...(x % 3 === 0 ? { seen: new Map([[channelName(peer, process), x + y]]) } : {}),
    };
    const usable = x !== 3;
    return kind < 78
      ? { type: "checkpoint", process, checkpoint, usable }
      : { type: "checkpoint", process, checkpoint, usable, cut };
  }
  if (kind < 93) return { type: "stable", process };
  if (kind < 96) return { type: "gap", process, lost: x };
  const keep = x % (held.length + 1);
  held.length = keep;
  return { type: "rollback", process, checkpoint: held.at(-1) ?? 0 };
}

export interface Mixture {
  readonly stable: boolean;
  readonly cuts: boolean;
}

/** A true run: bytes are received only after they were sent, in order; a checkpoint's cut is what happened. */
export function execution(
  maxLength = 40,
  mixture: Mixture = { stable: true, cuts: true },
): fc.Arbitrary<Event[]> {
  return fc.array(step, { maxLength }).map((steps) => {
    const run = new Run(mixture);
    return steps.flatMap((s) => run.next(s));
  });
}

/** The state of a true run: offsets sent and received per channel, checkpoints per process. */
class Run {
  readonly #sent = new Map<string, number>();
  readonly #received = new Map<string, number>();
  readonly #seen = new Map<string, number>();
  readonly #checkpoints = new Map<string, number>();
  readonly #mixture: Mixture;

  constructor(mixture: Mixture) {
    this.#mixture = mixture;
  }

  next({ process: p, peer: q, kind, x, y }: Step): Event[] {
    const process = PROCESSES[p] as string;
    const peer = PROCESSES[q] as string;
    if (kind < 40 && p !== q) {
      const channel = channelName(process, peer);
      const begin = this.#sent.get(channel) ?? 0;
      this.#sent.set(channel, begin + y + 1);
      return [{ type: "send", process, channel, begin, end: begin + y + 1 }];
    }
    if (kind < 75 && p !== q) {
      const channel = channelName(peer, process);
      const begin = this.#received.get(channel) ?? 0;
      const end = Math.min(this.#sent.get(channel) ?? 0, begin + x + 1);
      if (begin === end) return [];
      if (kind > 68) {
        this.#seen.set(channel, Math.max(end, this.#seen.get(channel) ?? 0));
        return [{ type: "peek", process, channel, begin, end }];
      }
      this.#received.set(channel, end);
      return [{ type: "receive", process, channel, begin, end }];
    }
    if (kind < 30) return this.#exchange(process, x, y);
    if (kind < 92 || !this.#mixture.stable) {
      const checkpoint = (this.#checkpoints.get(process) ?? 0) + 1;
      this.#checkpoints.set(process, checkpoint);
      const base = { type: "checkpoint", process, checkpoint, usable: true } as const;
      return [this.#mixture.cuts ? { ...base, cut: this.#cut(process) } : base];
    }
    return [{ type: "stable", process }];
  }

  /** With the outside; the line that says so comes first, or after it, and again now and then. */
  #exchange(process: string, x: number, y: number): Event[] {
    const input = x % 2 === 0;
    const channel = input ? channelName("w", process) : channelName(process, "w");
    const offsets = input ? this.#received : this.#sent;
    const begin = offsets.get(channel) ?? 0;
    offsets.set(channel, begin + y + 1);
    const line = { type: "outside", process, channel } as const;
    const range = { process, channel, begin, end: begin + y + 1 };
    const moved: Event = input ? { type: "receive", ...range } : { type: "send", ...range };
    if (begin === 0) return x > 5 ? [line, moved] : [moved, line];
    return x === 4 ? [line, moved] : [moved];
  }

  #cut(process: string): Cut {
    const own = (offsets: Map<string, number>, place: number) =>
      new Map([...offsets].filter(([channel]) => channel[place] === process));
    const received = own(this.#received, 1);
    const seen = new Map(
      [...own(this.#seen, 1)].filter(([channel, end]) => end > (received.get(channel) ?? 0)),
    );
    return { sent: own(this.#sent, 0), received, ...(seen.size > 0 ? { seen } : {}) };
  }
}

export function evidenceOf(events: Iterable<Event>, alsoKnown: readonly string[] = PROCESSES): Evidence {
  const builder = new EvidenceBuilder();
  for (const process of alsoKnown) builder.addProcess(process);
  for (const event of events) builder.addEvent(event);
  return builder.build();
}
