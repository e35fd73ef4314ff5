import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { captureParts } from "../../src/capture/kernel-support.ts";
import { cgroup2Root } from "../../src/host/cgroups.ts";
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
        "capture: progress",
        "capture: sockets",
        "capture: life",
        "rights",
        "criu",
        "podman",
        "payload-logger",
        "nftables",
        "ss",
        "hook",
        "sdk",
        "sdk-c",
        "io_uring",
        "cgroup-freezer",
      ]),
    );
    for (const { reason } of capabilities) expect(reason).toMatch(/\S.*\.$/);
    const trace = captureParts().find(({ part, variant }) => part === "life" && variant === "trace");
    expect(trace?.reason).toContain("listener made in another cgroup");
    const ours = (folder: string) =>
      existsSync(folder) ? readdirSync(folder).filter((name) => name.includes("doctor-")) : [];
    expect(ours("/sys/fs/bpf")).toEqual([]);
    expect(ours(`${cgroup2Root()}/recovery-line`)).toEqual([]);
    expect(readdirSync(rig.home)).toEqual([]);
  }),
);

live(
  "doctor: without nft, ss, cc and CRIU each of their rows says no, and what to install; the rest works",
  () =>
    withRig("doctor-poor", async (rig) => {
      const bare = rig.path("bin");
      mkdirSync(bare);
      for (const name of ["sh", "cat", "sleep"]) symlinkSync(`/bin/${name}`, join(bare, name));
      const env = {
        ...process.env,
        PATH: bare,
        RECOVERY_LINE_HOME: rig.home,
        RECOVERY_LINE_CRIU: "/nowhere/criu",
      };
      const cli = join(import.meta.dirname, "../../dist/cli/main.js");
      const { stdout } = spawnSync(process.execPath, [cli, "doctor", "--json"], { env, encoding: "utf8" });
      const rows = new Map((JSON.parse(stdout) as Doctor).capabilities.map((one) => [one.name, one]));
      const no = (name: string) => [rows.get(name)!.supported, rows.get(name)!.reason];
      expect(no("nftables")).toEqual([false, expect.stringContaining("nft does not start")]);
      expect(no("ss")).toEqual([false, expect.stringContaining("ss is missing (Debian: iproute2)")]);
      expect(no("sdk-c")).toEqual([false, "There is no C compiler here (cc)."]);
      expect(no("criu")).toEqual([false, expect.stringContaining("criu")]);
      expect(no("podman")).toEqual([false, "podman is not installed."]);
      expect(["hook", "sdk", "payload-logger"].map((name) => rows.get(name)!.supported)).toEqual([
        true,
        true,
        true,
      ]);
    }),
);

live("doctor as nobody: what takes rights says so, and what is there is not called missing", () =>
  withRig("doctor-nobody", async () => {
    const cli = join(import.meta.dirname, "../../dist/cli/main.js");
    const asNobody = [
      "--reuid=65534",
      "--regid=65534",
      "--clear-groups",
      process.execPath,
      cli,
      "doctor",
      "--json",
    ];
    const { stdout } = spawnSync("setpriv", asNobody, { encoding: "utf8" });
    const rows = (JSON.parse(stdout) as Doctor).capabilities;
    expect(rows.find(({ name }) => name === "ss")).toMatchObject({
      supported: false,
      reason: expect.stringMatching(/^ss ends connections for root alone \(CAP_NET_ADMIN\)/),
    });
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
