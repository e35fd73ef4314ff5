import { closeSync, existsSync, mkdtempSync, openSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { removedFiles, withoutLeftNames } from "../../src/images/criu/removed-files.ts";

let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "recovery-line-removed-"));
});
afterEach(() => rmSync(folder, { recursive: true }));

test("removed files that are still open are named, others not", () => {
  const [gone, there] = ["gone", "there"].map((name) => join(folder, name)) as [string, string];
  const open = [gone, there].map((path) => openSync(path, "w"));
  rmSync(gone);
  const found = removedFiles([process.pid]);
  for (const descriptor of open) closeSync(descriptor);
  expect(found).toContain(gone);
  expect(found).not.toContain(there);
  expect(removedFiles([process.pid])).not.toContain(gone);
});

test("a restore that fails leaves none of their names, and takes nobody else's; one that was killed is cleaned up after", async () => {
  const [own, others] = ["own", "others"].map((name) => join(folder, name)) as [string, string];
  writeFileSync(others, "somebody's");
  writeFileSync(`${others}.cr_link`, "left by a restore that was killed");
  const failing = withoutLeftNames([own, others], async () => {
    expect(readdirSync(folder)).toEqual(["others"]);
    for (const name of [own, `${others}.cr_link`]) writeFileSync(name, "CRIU's");
    throw new Error("Restoring FAILED");
  });
  await expect(failing).rejects.toThrow("Restoring FAILED");
  expect(readdirSync(folder)).toEqual(["others"]);
  expect(await withoutLeftNames([own], async () => existsSync(own))).toBe(false);
});
