import { expect, test } from "vitest";
import { nextLookMs } from "../../src/capture/ring-pace.ts";
import { MIN_POLL_MS, RING_LOOK_MS } from "../../src/model/limits.ts";

test("rings are looked at so that they are a quarter full then, within the bounds", () => {
  expect(nextLookMs(0, 50)).toBe(RING_LOOK_MS);
  expect(nextLookMs(0.01, 50)).toBe(RING_LOOK_MS);
  expect(nextLookMs(0.5, 100)).toBe(50);
  expect(nextLookMs(0.5, 10)).toBe(5);
  expect(nextLookMs(1, 2)).toBe(MIN_POLL_MS);
  expect(nextLookMs(Number.POSITIVE_INFINITY, 50)).toBe(MIN_POLL_MS); // a producer that lies
  expect(nextLookMs(0.5, 0)).toBe(MIN_POLL_MS);
});
