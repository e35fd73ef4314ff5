/**
 * How much of a long test is done: enough to show its claim by `npm test`, all of it by `npm run test:long`. Tests with the tag `long` are
 * left to that one: a smaller one beside them shows the same.
 */
export function sized<T>(all: T, some: T): T {
  return process.env["RL_TEST_LONG"] === undefined ? some : all;
}

export const LONG = { tags: ["long"] };
