/** Binary search against looking at each place, on all small columns and bounds. */
import { expect, test } from "vitest";
import { firstAbove, firstWhere } from "../../src/model/search.ts";

const LONGEST = 6;

/** All rising columns of up to `LONGEST` values below 4, doubles among them. */
function columns(): number[][] {
  let longest: number[][] = [[]];
  const all = [...longest];
  for (let length = 1; length <= LONGEST; length += 1) {
    longest = longest.flatMap((column) =>
      [0, 1, 2, 3].filter((value) => value >= (column.at(-1) ?? 0)).map((value) => [...column, value]),
    );
    all.push(...longest);
  }
  return all;
}

test("the first place that holds is the one that a look at each place finds, within its bounds", () => {
  let asked = 0;
  for (const column of columns())
    for (let low = 0; low <= column.length; low += 1)
      for (let high = low; high <= column.length; high += 1)
        for (let bound = -1; bound < 4; bound += 1) {
          const holds = (at: number): boolean => column[at]! > bound;
          let expected = low;
          while (expected < high && !holds(expected)) expected += 1;
          expect(firstWhere(low, high, holds)).toBe(expected);
          expect(firstAbove(Uint32Array.from(column), low, high, bound)).toBe(expected);
          asked += 1;
        }
  expect(asked).toBeGreaterThan(10_000);
});
