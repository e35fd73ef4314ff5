/** Plain sets of bytes: one element a byte. */
export type Bytes = ReadonlySet<number>;

export const NONE: Bytes = new Set();

/** [begin, end) as a set. */
export function range(begin: number, end: number): Bytes {
  return new Set(Array.from({ length: end - begin }, (_, k) => begin + k));
}

export function union(...sets: readonly Bytes[]): Bytes {
  return new Set(sets.flatMap((set) => [...set]));
}

export function difference(a: Bytes, b: Bytes): Bytes {
  return new Set([...a].filter((byte) => !b.has(byte)));
}

export function isSubset(a: Bytes, b: Bytes): boolean {
  return [...a].every((byte) => b.has(byte));
}

/** Maximal ranges of a set, rising. */
export function maximalRanges(bytes: Bytes): [begin: number, end: number][] {
  const result: [number, number][] = [];
  for (const byte of [...bytes].sort((a, b) => a - b)) {
    const last = result.at(-1);
    if (last !== undefined && last[1] === byte) last[1] = byte + 1;
    else result.push([byte, byte + 1]);
  }
  return result;
}
