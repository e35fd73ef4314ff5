/**
 * What stands in a log for the blocks that retention removed: ordinary blocks that readers get before the kept ones.
 * One of a process that lost history begins at the checkpoint that all of it is collapsed into (logs-format.md, "Base").
 */

/** Name of the state that holds it. */
export const BASE_STATE = "base";

export interface LogBase {
  /** Number of the first block that is kept: the base holds what earlier ones said and may still matter. */
  readonly boundary: number;
  /** In the order of their numbers, all below the boundary. */
  readonly blocks: readonly Uint8Array[];
}

/** The state as it was stored, or undefined: nothing was removed. The state's digest vouches for it. Throws `TypeError` for another shape. */
export function baseOf(state: unknown): LogBase | undefined {
  if (state === undefined || state === null) return undefined;
  const { boundary, blocks } = state as Partial<LogBase>;
  const whole =
    Number.isSafeInteger(boundary) &&
    Array.isArray(blocks) &&
    blocks.every((block) => block instanceof Uint8Array);
  if (!whole) throw new TypeError("the base of a log has another shape");
  return { boundary: boundary as number, blocks: blocks as readonly Uint8Array[] };
}
