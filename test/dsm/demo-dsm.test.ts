import { expect, test } from "vitest";
import { build, run } from "../cli/cli.ts";

test("demo dsm kills a process and prints a line with page evidence", async () => {
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
});
