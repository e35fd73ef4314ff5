/** A collector that has nothing to do looks once a second; the first record after that still comes within the bound of the group commit. */
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { KernelSource } from "../../src/capture/kernel-source.ts";
import { kernelSupport } from "../../src/capture/kernel-support.ts";
import { Collector } from "../../src/collect/collect.ts";
import { IDLE_POLL_MS } from "../../src/model/limits.ts";
import { FakeDisk } from "../unit/collect-fakes.ts";
import { TestCgroups } from "./cgroups.ts";
import { ensureBpffs } from "./ring-rig.ts";

const lacking = kernelSupport().find((one) => ["addon", "permission"].includes(one.name) && !one.supported);

/** Sends a byte to itself for each signal. */
const SCRIPT = `
  const net = require("node:net");
  const server = net.createServer((one) => one.resume()).listen(0, "127.0.0.1", () => {
    const client = net.connect(server.address().port, "127.0.0.1", () => console.log("ready"));
    process.on("SIGUSR2", () => client.write("x"));
  });`;

test.skipIf(lacking !== undefined)(
  "a process that was silent for seconds: its next record wakes the collector",
  async () => {
    ensureBpffs();
    const home = mkdtempSync(join(tmpdir(), "idle-wake-"));
    const pinDir = `/sys/fs/bpf/rl-idle-wake-${process.pid}`;
    const cgroups = new TestCgroups("rl-idle-wake");
    const cgroupId = cgroups.make("p");
    const disk = new FakeDisk();
    const source = KernelSource.open({ pinDir, ringBytes: 1 << 16, cgroupLevel: cgroups.level });
    const collector = await Collector.over({ source, home, openLog: disk.opener(() => true) });
    await collector.registrations.register({ app: "app", process: "p", cgroupId });
    const child = cgroups.spawn("p", process.execPath, ["-e", SCRIPT]);
    const recorded = () => disk.events(join(home, "app")).filter(({ type }) => type === "send").length;
    try {
      await once(child.stdout!, "data");
      const delays: number[] = [];
      // By its timer alone each would take three quarters of the idle wait: the rounds are in step with it. One at once shows the waking.
      for (let round = 1; round <= 5 && !delays.some((ms) => ms < IDLE_POLL_MS / 4); round += 1) {
        await new Promise((resolve) => setTimeout(resolve, 2.5 * IDLE_POLL_MS)); // its wait doubles up to that
        const before = recorded();
        const sentMs = performance.now();
        child.kill("SIGUSR2");
        while (recorded() === before && performance.now() - sentMs < 5000)
          await new Promise((resolve) => setTimeout(resolve, 5));
        delays.push(performance.now() - sentMs);
      }
      expect(Math.min(...delays), JSON.stringify(delays)).toBeLessThan(IDLE_POLL_MS / 4);
    } finally {
      child.kill("SIGKILL");
      await collector.close();
      KernelSource.unpin(pinDir);
      await cgroups.remove();
      rmSync(home, { recursive: true, force: true });
    }
  },
  60_000,
);
