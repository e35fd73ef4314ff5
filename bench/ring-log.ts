/** Logs for benches: a ring of processes that pass bytes to the right, as columns batch by batch. */
import { EVENT_KIND, EventColumns } from "../src/format/event-columns.ts";
import type { Cut } from "../src/model/event.ts";

export interface RingShape {
  readonly processes: number;
  /** Lines of one process between two checkpoints, the checkpoint included. */
  readonly interval: number;
  /** False: checkpoints carry no cuts. */
  readonly cuts: boolean;
}

/** Bytes of one message. */
const MESSAGE = 64;

/**
 * Batch `round` of process `p`: half sends to the right, half receives from the left, and a checkpoint before the last message that comes
 * in, so that a restart of one process throws its left neighbour's message away and nobody else back.
 */
export function ringBatch({ processes, interval, cuts }: RingShape, p: number, round: number): EventColumns {
  const columns = new EventColumns(`p${p}`);
  const channels = [`c${p}`, `c${(p + processes - 1) % processes}`] as const;
  const right = columns.addChannel(channels[0]);
  const left = columns.addChannel(channels[1]);
  const pairs = (interval - 2) / 2;
  let at = round * (pairs + 1) * MESSAGE;
  const exchange = (): void => {
    const time = at * 1000;
    columns.pushRange(EVENT_KIND.send, right, at, at + MESSAGE, time, p);
    columns.pushRange(EVENT_KIND.receive, left, at, at + MESSAGE, time + 500, p);
    at += MESSAGE;
  };
  for (let i = 0; i < pairs; i += 1) exchange();
  const cut: Cut = { sent: new Map([[channels[0], at]]), received: new Map([[channels[1], at]]) };
  columns.push({
    type: "checkpoint",
    process: `p${p}`,
    checkpoint: round + 1,
    usable: true,
    ...(cuts ? { cut } : {}),
  });
  exchange();
  return columns;
}
