/** Binary search. */

/** First index of [low, high) from which on `holds`; `high` where it never does. It must not hold again before that index. */
export function firstWhere(low: number, high: number, holds: (at: number) => boolean): number {
  let [from, to] = [low, high];
  while (from < to) {
    const middle = (from + to) >>> 1;
    if (holds(middle)) to = middle;
    else from = middle + 1;
  }
  return from;
}

/** First index of [low, high) of a rising column whose value exceeds `bound`. For hot loops: one kind of array, no call a step. */
export function firstAbove(values: Uint32Array, low: number, high: number, bound: number): number {
  let from = low;
  let to = high;
  while (from < to) {
    const middle = (from + to) >>> 1;
    if ((values[middle] as number) > bound) to = middle;
    else from = middle + 1;
  }
  return from;
}
