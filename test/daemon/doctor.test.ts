import { existsSync, readdirSync } from "node:fs";
import { expect, test } from "vitest";
import { cgroup2Root } from "../../src/restart/cgroups.ts";
import { missing, until, withRig } from "./rig.ts";

const live = test.skipIf(missing !== undefined);

interface Doctor {
  readonly capabilities: { readonly name: string; readonly supported: boolean; readonly reason: string }[];
  readonly selfTest: { readonly passed: boolean; readonly reason: string };
}

live("doctor: every capability has a reason, the self-test really captures, and nothing is left behind", () =>
  withRig("doctor", async (rig) => {
    const { capabilities, selfTest } = await rig.json<Doctor>("doctor");
    expect(selfTest).toMatchObject({
      passed: true,
      reason: expect.stringMatching(/^\d+ events, 6 channels, \d{7} bytes/),
    });
    expect(capabilities.map(({ name }) => name)).toEqual(
      expect.arrayContaining([
        "addon",
        "tcp-exact",
        "socket-iterator",
        "rights",
        "criu",
        "nftables",
        "cgroup-freezer",
      ]),
    );
    for (const { reason } of capabilities) expect(reason).toMatch(/\S.*\.$/);
    const ours = (folder: string) =>
      existsSync(folder) ? readdirSync(folder).filter((name) => name.includes("doctor-")) : [];
    expect(ours("/sys/fs/bpf")).toEqual([]);
    expect(ours(`${cgroup2Root()}/recovery-line`)).toEqual([]);
    expect(readdirSync(rig.home)).toEqual([]);
    const table = await rig.cli("doctor");
    expect(table.out).toMatch(/^capability +here +needed for +why\naddon +yes/);
    expect(table.out).toContain("loopback self-test passed");
  }),
);

live("doctor: Ctrl-C in the middle of the self-test leaves nothing in the kernel", () =>
  withRig("doctor-signal", async (rig) => {
    const { child, ended } = rig.background("doctor");
    const [pins, cgroups] = [
      `/sys/fs/bpf/recovery-line-doctor-${child.pid}`,
      `${cgroup2Root()}/recovery-line/doctor-${child.pid}`,
    ];
    await until("it has begun", () => existsSync(pins));
    child.kill("SIGINT");
    expect((await ended).out).not.toContain("self-test passed");
    expect([child.signalCode, existsSync(pins), existsSync(cgroups)]).toEqual(["SIGINT", false, false]);
  }),
);
