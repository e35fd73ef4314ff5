/** What whoever starts again from its command needs: its program, its folder, and a folder for its output. */
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { startObstacles } from "../../src/restart/start-obstacles.ts";

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "start-obstacles-"));
  mkdirSync(join(dir, "bin"));
  writeFileSync(join(dir, "bin/program"), "#!/bin/sh\n", { mode: 0o755 });
});
afterEach(() => rmSync(dir, { recursive: true }));

const of = (command: string, change: { cwd?: string; output?: string; roots?: string[] } = {}): string[] => {
  const { cwd = dir, output, roots = [] } = change;
  const file = output === undefined ? {} : { output: { path: output, sizeBytes: 0, inode: 1, device: 1 } };
  return startObstacles({ command: [command], cwd, env: { PATH: join(dir, "bin") }, ...file }, roots);
};

test("a program by its path, from its folder, or by the PATH that it was started with", () => {
  for (const name of [join(dir, "bin/program"), "bin/program", "./bin/program", "program"])
    expect([name, of(name)]).toEqual([name, []]);
  for (const name of [join(dir, "other"), "program/", "./program", "sh"]) // no sh in that PATH
    expect([name, of(name)]).toEqual([
      name,
      [`it has to start again, and its program ${name} is gone: put it back`],
    ]);
  chmodSync(join(dir, "bin/program"), 0o644);
  expect(of("program")).toEqual([expect.stringContaining(`may not be run any more (${dir}/bin/program)`)]);
});

test("folders: its own, and that of its output; what is put back with it is no obstacle", () => {
  const gone = join(dir, "gone");
  expect(of(join(dir, "bin/program"), { cwd: gone })).toEqual([
    `it has to start again in ${gone}, which is no folder any more: put it back`,
  ]);
  expect(of("program", { output: join(gone, "out") })).toEqual([
    `its output goes to ${gone}/out, and there is no folder ${gone} any more: put it back`,
  ]);
  expect(of(join(gone, "program"), { cwd: gone, output: join(gone, "out"), roots: [gone] })).toEqual([]);
});
