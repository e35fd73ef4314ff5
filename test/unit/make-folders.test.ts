import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { makeFolders } from "../../src/host/make-folders.ts";

test("makes what is missing, with its mode, and leaves what is there", () => {
  const root = mkdtempSync(join(tmpdir(), "make-folders-"));
  makeFolders(join(root, "a/b/c"));
  makeFolders(join(root, "a/b/c"));
  expect(statSync(join(root, "a")).mode & 0o777).toBe(0o700);
  writeFileSync(join(root, "file"), "");
  expect(() => makeFolders(join(root, "file"))).toThrow(/EEXIST/);
  expect(() => makeFolders(join(root, "file/below"))).toThrow(/ENOTDIR|EEXIST/);
  rmSync(root, { recursive: true });
});

/** Node's own recursive mkdir never returns here: in a child, so that a hang is a failure and no hang. */
test.each(["/proc/x", "/proc/x/y", "/sys/kernel/x"])("%s is refused in time", (path) => {
  const script = `
    const { makeFolders } = await import(${JSON.stringify(join(process.cwd(), "dist/host/make-folders.js"))});
    try { makeFolders(${JSON.stringify(path)}); } catch ({ code, message }) { console.log(code, message); }`;
  const { stdout, status } = spawnSync(process.execPath, ["--input-type=module", "-e", script], {
    encoding: "utf8",
    timeout: 10_000,
  });
  expect(status).toBe(0);
  expect(stdout).toMatch(/^(RL_USAGE no folder can be made in \/proc|EPERM|EACCES)/);
});
