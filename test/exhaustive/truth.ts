/**
 * The truth about a small execution that lost nothing, as counts per position: the judge of the enumeration. One byte is one
 * message, every channel is FIFO, so a cut is consistent iff received ≤ sent on every channel (theory.md). Names are one letter long.
 */
import type { Event } from "../../src/model/event.ts";
import { type Execution, OUTSIDE } from "./enumerate.ts";

export interface Truth {
  /** Effective histories, by process. */
  readonly histories: Event[][];
  /** sent[i][n][j]: bytes that i has sent to j at position n. */
  readonly sent: number[][][];
  /** received[j][n][i]: bytes that j has received from i at position n. */
  readonly received: number[][][];
  /** seen[j][n][i]: bytes that j has received from i or looked at. */
  readonly seen: number[][][];
  /** inputs[i][n], outputs[i][n]: bytes from and to outside. */
  readonly inputs: number[][];
  readonly outputs: number[][];
  /** restorable[i][n]: position n can be restored after i died. */
  readonly restorable: boolean[][];
  /** logged[i][j]: bytes from i to j that the message log of i covers. */
  readonly logged: number[][];
  /** heard[i][j]: some line says that j is the receiving end of the channel from i. */
  readonly heard: boolean[][];
}

export type Policy = "any" | "logged";

export function truthOf({ processes, events }: Execution): Truth {
  const heard = processes.map((i) => processes.map((j) => events.some((event) => names(event, i, j))));
  const truth: Truth = {
    histories: [],
    sent: [],
    received: [],
    seen: [],
    inputs: [],
    outputs: [],
    restorable: [],
    logged: [],
    heard,
  };
  processes.forEach((name) => {
    const history = effective(events, name);
    const sent = [processes.map(() => 0)];
    const received = [processes.map(() => 0)];
    const seen = [processes.map(() => 0)];
    const [inputs, outputs] = [[0], [0]];
    let stable = 0;
    history.forEach((event, line) => {
      const out = [...sent[line]!];
      const into = [...received[line]!];
      const known = [...seen[line]!];
      let [input, output] = [inputs[line]!, outputs[line]!];
      const isOutside = "channel" in event && event.channel.includes(OUTSIDE);
      if (event.type === "stable") stable = line + 1;
      else if (isOutside && event.type === "send") output = event.end;
      else if (isOutside && event.type === "receive") input = event.end;
      else if (event.type === "send") out[processes.indexOf(event.channel[2]!)] = event.end;
      else if (event.type === "receive" || event.type === "peek") {
        const from = processes.indexOf(event.channel[0]!);
        if (event.type === "receive") into[from] = event.end;
        known[from] = Math.max(known[from]!, event.end);
      }
      sent.push(out);
      received.push(into);
      seen.push(known);
      inputs.push(input);
      outputs.push(output);
    });
    truth.histories.push(history);
    truth.sent.push(sent);
    truth.received.push(received);
    truth.seen.push(seen);
    truth.inputs.push(inputs);
    truth.outputs.push(outputs);
    truth.restorable.push(sent.map((_, n) => n <= stable || isUsable(history[n - 1])));
    truth.logged.push(sent[stable]!);
  });
  return truth;
}

function names(event: Event, from: string, to: string): boolean {
  if (event.process !== to) return false;
  if (event.type === "receive" || event.type === "peek") return event.channel === `${from}>${to}`;
  return event.type === "checkpoint" && event.cut?.received.has(`${from}>${to}`) === true;
}

function isUsable(event: Event | undefined): boolean {
  return event?.type === "checkpoint" && event.usable;
}

function effective(events: readonly Event[], process: string): Event[] {
  const history: Event[] = [];
  for (const event of events) {
    if (event.process !== process) continue;
    if (event.type === "rollback") {
      let keep = history.length;
      const isTarget = (line: Event): boolean =>
        line.type === "checkpoint" && line.checkpoint === event.checkpoint;
      while (keep > 0 && !isTarget(history[keep - 1]!)) keep -= 1;
      history.length = keep;
    }
    history.push(event);
  }
  return history;
}

/**
 * True if the positions form a consistent cut. `continues[j]`: j is not rolled back, what is under way to it is not lost; but a receiver
 * that nobody knows of can't be relied on (docs/semantics.md, 6).
 */
export function isConsistent(
  truth: Truth,
  positions: ArrayLike<number>,
  continues: readonly boolean[],
  policy: Policy,
): boolean {
  const count = truth.histories.length;
  for (let i = 0; i < count; i += 1)
    for (let j = 0; j < count; j += 1) {
      if (i === j) continue;
      const sent = truth.sent[i]![positions[i]!]![j]!;
      const received = truth.received[j]![positions[j]!]![i]!;
      if (truth.seen[j]![positions[j]!]![i]! > sent) return false;
      if (policy === "any" || (continues[j] && truth.heard[i]![j])) continue;
      if (sent > Math.max(received, truth.logged[i]![j]!)) return false;
    }
  return true;
}

export interface Vector {
  readonly positions: number[];
  readonly continues: boolean[];
}

/** The recovery line by trying every vector of restore points. */
export function greatestVector(truth: Truth, failed: readonly boolean[], policy: Policy): Vector {
  const count = truth.histories.length;
  const positions = new Array<number>(count).fill(0);
  const continues = new Array<boolean>(count).fill(false);
  const best = new Array<number>(count).fill(0);
  const visit = (i: number): void => {
    if (i === count) {
      if (isConsistent(truth, positions, continues, policy))
        for (let p = 0; p < count; p += 1) best[p] = Math.max(best[p]!, positions[p]!);
      return;
    }
    const end = truth.histories[i]!.length;
    for (let n = 0; n <= end; n += 1) {
      const survives = n === end && !failed[i];
      if (!survives && !truth.restorable[i]![n]) continue;
      positions[i] = n;
      continues[i] = survives;
      visit(i + 1);
    }
  };
  visit(0);
  return { positions: best, continues: best.map((n, p) => !failed[p] && n === truth.histories[p]!.length) };
}
