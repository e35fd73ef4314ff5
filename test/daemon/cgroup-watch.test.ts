/** A cgroup is looked at when its kernel has told of a change, and not before. */
import { spawn } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { CgroupWatch } from "../../src/daemon/cgroup-watch.ts";
import { ProcessCgroup } from "../../src/host/cgroups.ts";
import { missing, until } from "./rig.ts";

test.skipIf(missing !== undefined)("a process's end makes its cgroup due, and only that", async () => {
  const watch = new CgroupWatch();
  const name = { app: `cgroup-watch-${process.pid}`, process: "p" };
  const cgroup = new ProcessCgroup(name.app, name.process);
  cgroup.create();
  const child = spawn("sleep", ["100"]);
  try {
    writeFileSync(join(cgroup.path, "cgroup.procs"), `${child.pid}`);
    const watched = { ...name, cgroupId: cgroup.id! };
    expect(watch.isDue(watched)).toBe(true); // nobody has looked yet
    await until("it is quiet", () => !watch.isDue(watched)); // word of its beginning may come late
    child.kill("SIGKILL");
    await until("it is due", () => watch.isDue(watched));
    await until("it is empty", () => !cgroup.populated);
    await until("it is quiet", () => !watch.isDue(watched));
    watch.retain([]); // another look begins anew
    expect(watch.isDue(watched)).toBe(true);
  } finally {
    child.kill("SIGKILL");
    watch.retain([]);
    await until("its cgroup is gone", () => cgroup.remove());
  }
});

test.skipIf(missing !== undefined)("to thaw a cgroup that is gone is nothing, to freeze it an error", () => {
  const cgroup = new ProcessCgroup(`gone-${process.pid}`, "p");
  cgroup.create();
  expect(cgroup.remove()).toBe(true);
  cgroup.thaw();
  expect(() => cgroup.setFreeze(true)).toThrow("cannot be written: ENOENT");
});
