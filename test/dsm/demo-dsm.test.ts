import { expect, test } from "vitest";
import { build, run } from "../cli/cli.ts";

test("demo dsm kills a process and goes on from the line to the sequential result", async () => {
  build();
  const { code, stdout, stderr } = await run(["demo", "dsm"]);
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  expect(stdout).toMatch(/Killed process p2 with SIGKILL/);
  for (const rank of [0, 1, 3])
    expect(stdout).toMatch(new RegExp(`dsm: process p${rank}: process p2 is gone`));
  for (const process of ["p0", "p1", "p3", "h0", "h1", "h3"])
    expect(stdout).toMatch(new RegExp(`^${process} +(restore|continue|initial) `, "m"));
  // The failed two can't go on; everybody who restarts from an image has it intact.
  for (const process of ["p2", "h2"])
    expect(stdout).toMatch(new RegExp(`^${process} +(restore|initial) `, "m"));
  expect(stdout).toMatch(/\d+ pages? in the line, up to version \d+; each has a surviving copy/);
  expect(stdout).toMatch(/with exact last-writer dependencies \d+ events are kept/);
  expect(stdout).toMatch(/images? of the line read and equal to the SHA-256/);
  // What p2 had received since its checkpoint is undone.
  expect(stdout).toMatch(/Arrivals of page copies that the line undoes, [1-9]/);
  const restart = /--restore (.*)\np0 went on with iteration (\d+) of (\d+)/.exec(stdout);
  expect(restart?.[1]).toMatch(/^h0:\d+,h1:\d+,h2:\d+,h3:\d+,p0:\d+,p1:\d+,p2:\d+,p3:\d+$/);
  // A checkpoint ends each iteration: p0 goes on behind the one that the line names, not from the start.
  const [, line, iteration, iterations] = restart as unknown as [string, string, string, string];
  expect(Number(iteration)).toBe(1 + Number(/p0:(\d+)/.exec(line)![1]));
  expect(Number(iteration)).toBeGreaterThan(1);
  expect(Number(iteration)).toBeLessThan(Number(iterations));
  expect(stdout).toMatch(
    /The traces go on with 8 rollbacks: [1-9]\d* records of page copies undone, [1-9]\d* new ones/,
  );
  expect(stdout).toMatch(
    /[1-9]\d* pages came from their homes again, the first time each in the newest version/,
  );
  expect(stdout).toMatch(
    /65,?536 points of the grid are compared with a sequential run: equal, bit by bit\.\n$/,
  );
});
