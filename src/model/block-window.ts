/** Blocks of a log by windows: those of one are read together, by one request. */

/** Of one window, count. */
const WINDOW_BLOCKS = 64;

export interface BlockWindow {
  readonly number: number;
  /** Numbers of its first and last block. */
  readonly first: number;
  readonly last: number;
}

/** The window of the block with this number, ≥ 1. */
export function windowOf(chain: number): BlockWindow {
  const number = Math.floor((chain - 1) / WINDOW_BLOCKS);
  return { number, first: number * WINDOW_BLOCKS + 1, last: (number + 1) * WINDOW_BLOCKS };
}
