/** What dead programs leave in the kernel: doctor names it, doctor --sweep removes it, and nothing that is in use. */
import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { KernelSource } from "../../src/capture/kernel-source.ts";
import { leftBehind } from "../../src/cli/doctor-leftovers.ts";
import { leftovers } from "../../src/daemon/leftovers.ts";
import { lockCollection } from "../../src/log/log-lock.ts";
import { removeJournal, restartFolder } from "../../src/restart/restart-journal.ts";
import { missing, until, withRig } from "./rig.ts";

const nft = spawnSync("nft", ["list", "tables"]).status === 0;
const live = test.skipIf(missing !== undefined || !nft);

/** The id of a process that has ended. */
function deadPid(): number {
  return spawnSync("true").pid;
}

function tables(): string {
  return execFileSync("nft", ["list", "tables"], { encoding: "utf8" });
}

live("a capture, a blocked connection and CRIU's table of dead programs go; what is in use stays", () =>
  withRig("leftovers", async (rig) => {
    await rig.collect(); // its capture is read
    await rig.run("p", "sleep", "100");
    const dead = `/sys/fs/bpf/rl-leftover-${deadPid()}`;
    const alive = `/sys/fs/bpf/rl-leftover-${process.pid}`;
    const [blocked, foreign] = [rig.app, `x-${rig.app}`].map(
      (app) => `recovery_line_restart_${Buffer.from(app).toString("hex")}`,
    ) as [string, string];
    const criu = ["empty", "dumped"].map((name) => `CRIU-${name}-${process.pid}`) as [string, string];
    const end = "ipv4_addr . inet_service";
    const conns = (table: string) =>
      `add set inet ${table} conns4 { type ${end} . ${end}; }\nadd element inet ${table} conns4 { 127.0.0.1 . 1 . 127.0.0.1 . 2 }\n`;
    try {
      for (const pinDir of [dead, alive])
        KernelSource.open({ pinDir, ringBytes: 1 << 20, cgroupLevel: 3 }).close();
      const script = [blocked, foreign, ...criu].map((name) => `add table inet ${name}\n`).join("");
      execFileSync("nft", ["-f", "-"], { input: script + conns(criu[1]) });
      const ours = [dead, alive, blocked, foreign, ...criu, rig.pinDir];
      let found: Record<string, string> = {};
      // Another test's CRIU may be at work: then its tables are nobody's leftovers. A failed dump of its may take the empty one away.
      await until(
        "no CRIU is at work",
        async () => {
          execFileSync("nft", ["add", "table", "inet", criu[0]]);
          const left = (await leftBehind(rig.home, false)).filter(({ name }) => ours.includes(name));
          found = Object.fromEntries(left.map(({ name, state }) => [name, state]));
          return criu[0] in found;
        },
        60_000,
      );
      expect(found).toEqual({
        [dead]: "removable",
        [blocked]: "removable",
        [foreign]: "kept",
        [criu[0]]: "removable",
        [criu[1]]: "kept",
      });
      const { out } = await rig.cli("doctor", "--sweep");
      expect(out).toMatch(/^capability +here +needed for +why\naddon +yes/);
      expect(out).toContain("loopback self-test passed");
      for (const [name, word] of [
        [dead, "removed"],
        [blocked, "removed"],
        [foreign, "kept"],
      ] as const)
        expect(out).toMatch(new RegExp(`${name} +${word} `));
      expect([dead, alive, rig.pinDir].map((path) => existsSync(path))).toEqual([false, true, true]);
      expect(tables()).not.toContain(`inet ${blocked}\n`);
      expect(tables()).toContain(foreign);
      expect(tables()).toContain(criu[1]);
      expect(rig.cgroup("p").populated).toBe(true);
    } finally {
      for (const pinDir of [dead, alive]) KernelSource.unpin(pinDir);
      const left = [blocked, foreign, ...criu].filter((name) => tables().includes(`inet ${name}\n`));
      execFileSync("nft", ["-f", "-"], { input: left.map((name) => `delete table inet ${name}\n`).join("") });
    }
  }),
);

live("a capture that no collector reads: the command that takes it out names its folder", () =>
  withRig("unread", async (rig) => {
    const unread = `/sys/fs/bpf/rl-unread-${process.pid}x`;
    try {
      KernelSource.open({ pinDir: unread, ringBytes: 1 << 20, cgroupLevel: 3 }).close();
      const found = (await leftBehind(rig.home, false)).find(({ name }) => name === unread);
      expect(found).toMatchObject({ state: "kept" });
      expect(found!.why).toContain(`recovery-line collect --unpin --pin-dir ${unread}.`);
    } finally {
      KernelSource.unpin(unread);
    }
  }),
);

live("the table of a restart that began while doctor looked stays, and one that is gone is no failure", () =>
  withRig("began", async (rig) => {
    const name = `recovery_line_restart_${Buffer.from(rig.app).toString("hex")}`;
    const folder = restartFolder(rig.home, rig.app);
    mkdirSync(join(rig.home, rig.app), { mode: 0o700 });
    execFileSync("nft", ["add", "table", "inet", name]);
    try {
      const { remove } = (await leftovers(rig.home)).find((one) => one.name === name)!;
      const unlock = await lockCollection(join(rig.home, rig.app)); // as a restart does
      await expect(remove!()).rejects.toMatchObject({ code: "RL_LOCKED" });
      unlock();
      mkdirSync(folder);
      writeFileSync(join(folder, "journal.json"), "{}"); // and was cut off
      await expect(remove!()).rejects.toThrow(`a restart of ${rig.app} has begun meanwhile`);
      expect(tables()).toContain(name);
      await removeJournal(folder);
      await remove!();
      expect(tables()).not.toContain(name);
      await remove!();
    } finally {
      if (tables().includes(name)) execFileSync("nft", ["delete", "table", "inet", name]);
    }
  }),
);
