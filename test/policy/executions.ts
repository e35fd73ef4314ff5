/** Random executions over FIFO byte channels, without checkpoints: policies bring theirs. */
import type { Event } from "../../src/model/event.ts";
import type { CostModel } from "../../src/policy/measures.ts";
import { Recorder, type Recording } from "../../src/policy/recording.ts";
import type { Random } from "../reference/random.ts";

export const COST: CostModel = { checkpoint: 0.25, restart: 1, imageBytes: 2 ** 20, mtbf: 86_400, event: 1 };
export const RULES = { dsm: "sequential", inTransit: "any" } as const;

export function randomExecution(random: Random, maxProcesses = 5, maxSteps = 80): Event[] {
  const names = Array.from({ length: 2 + random.below(maxProcesses - 1) }, (_, at) => `p${at}`);
  const sent = new Map<string, number>();
  const received = new Map<string, number>();
  const events: Event[] = [];
  for (let steps = 10 + random.below(maxSteps); steps > 0; steps -= 1) {
    const process = random.pick(names);
    const peer = random.pick(names.filter((name) => name !== process));
    const into = `${peer}>${process}`;
    const begin = received.get(into) ?? 0;
    const waiting = (sent.get(into) ?? 0) - begin;
    if (waiting > 0 && random.below(3) > 0) {
      const end = begin + 1 + random.below(waiting);
      received.set(into, end);
      events.push({ type: "receive", process, channel: into, begin, end });
    } else {
      const out = `${process}>${peer}`;
      const from = sent.get(out) ?? 0;
      const end = from + 1 + random.below(3);
      sent.set(out, end);
      events.push({ type: "send", process, channel: out, begin: from, end });
    }
  }
  return events;
}

export function recordingOf(events: Iterable<Event>): Recording {
  const recorder = new Recorder();
  for (const event of events) recorder.addEvent(event);
  return recorder.build();
}
