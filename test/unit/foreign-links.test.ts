import { chmodSync, mkdirSync, mkdtempSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { requireNoForeignLink } from "../../src/host/foreign-links.ts";
import { appDirectory, resolveHome } from "../../src/logs/home.ts";

let mine: string;
let open: string;
const refused = expect.objectContaining({ code: "RL_NO_RIGHTS" });

beforeEach(() => {
  mine = mkdtempSync(join(tmpdir(), "links-mine-"));
  open = mkdtempSync(join(tmpdir(), "links-open-"));
  chmodSync(open, 0o1777);
  mkdirSync(join(mine, "home"));
});
afterEach(() => {
  for (const folder of [mine, open]) rmSync(folder, { recursive: true });
});

test("a link in a folder that others can write is refused wherever it stands in the path", () => {
  symlinkSync(join(mine, "home"), join(open, "link"));
  expect(() => requireNoForeignLink(join(open, "link"))).toThrow(refused);
  expect(() => resolveHome(join(open, "link", "deeper", "still"))).toThrow(refused);
  symlinkSync(join(open, "link"), join(mine, "home", "app"));
  expect(() => appDirectory(join(mine, "home"), "app")).toThrow(refused);
  expect(() => appDirectory(join(mine, "home"), "other")).not.toThrow();
});

test("a link of our own in a folder of our own is followed, relative ones too, and what is not there is no link", () => {
  symlinkSync("home", join(mine, "link"));
  symlinkSync("../nowhere", join(mine, "home", "dangling"));
  for (const path of ["link", "link/app", "home/dangling", "nothing/at/all"])
    expect(() => requireNoForeignLink(join(mine, path))).not.toThrow();
  symlinkSync("loop", join(mine, "loop"));
  expect(() => requireNoForeignLink(join(mine, "loop"))).not.toThrow();
});
