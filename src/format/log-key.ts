/**
 * Keys of a log segment, compared as bytes (logs-format.md, "Keys"):
 *
 *   'b' chain number, u64 big endian   a block; so iteration is chain order, and the links in the headers
 *                                      (previousBlock, previousControl) lead back along one process by single gets
 *   'c'                                the commit record
 *   'h' process name                   the newest block of a process
 *   's' state key                      a value of `putState`
 *
 * What every commit overwrites sorts BEHIND the blocks: a table file then spans only the newest blocks and those keys,
 * and LevelDB never rewrites old blocks when it merges tables.
 */
import { setU64, viewOf } from "./u64.ts";

const PREFIX = { block: 0x62, commit: 0x63, head: 0x68, state: 0x73 } as const;
const BLOCK_KEY_BYTES = 9;

export const COMMIT_KEY: Uint8Array = Uint8Array.of(PREFIX.commit);
/** All heads and states: [first, beyond). */
export const STATE_RANGE = {
  gte: Uint8Array.of(PREFIX.head),
  lt: Uint8Array.of(PREFIX.state + 1),
} as const;

export function blockKey(chain: number): Uint8Array {
  const key = new Uint8Array(BLOCK_KEY_BYTES);
  key[0] = PREFIX.block;
  setU64(viewOf(key), 1, chain, false);
  return key;
}

/** Whether a key begins as a block's does. */
export function isBlockKey(key: Uint8Array): boolean {
  return key[0] === PREFIX.block;
}

/** Whether a key is of STATE_RANGE and means something. */
export function isStateKey(key: Uint8Array): boolean {
  return key[0] === PREFIX.head || key[0] === PREFIX.state;
}

/** The chain number of a block's key; NaN for any other key. */
export function chainOf(key: Uint8Array): number {
  if (key.length !== BLOCK_KEY_BYTES || key[0] !== PREFIX.block) return Number.NaN;
  let chain = 0;
  for (let at = 1; at < BLOCK_KEY_BYTES; at += 1) chain = chain * 256 + key[at]!; // once a block of a log: no view
  return Number.isSafeInteger(chain) ? chain : Number.NaN;
}

function named(prefix: number, name: string): Uint8Array {
  const bytes = new TextEncoder().encode(name);
  const key = new Uint8Array(1 + bytes.length);
  key[0] = prefix;
  key.set(bytes, 1);
  return key;
}

export function headKey(process: string): Uint8Array {
  return named(PREFIX.head, process);
}

export function stateKey(key: string): Uint8Array {
  return named(PREFIX.state, key);
}

/** What a key of `STATE_RANGE` stands for. */
export function parseStateKey(key: Uint8Array): { readonly kind: "head" | "state"; readonly name: string } {
  const name = new TextDecoder("utf-8", { ignoreBOM: true }).decode(key.subarray(1));
  return { kind: key[0] === PREFIX.head ? "head" : "state", name };
}
