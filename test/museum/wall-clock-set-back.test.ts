/**
 * The collector measured its waits by the wall clock: set back by an hour (NTP, an operator), it committed nothing for an hour unless
 * 256 KiB came together, declared no losses, and tried a log that had failed once only after that hour; set forward, a slow producer's
 * slot timed out at once.
 */
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { Collector } from "../../src/collect/collect.ts";
import { RingKind, RingVerdict } from "../../src/format/ring-layout.ts";
import { FakeDisk, FakeRing, FakeSource } from "../unit/collect-fakes.ts";

const HOUR_MS = 3_600_000;
let home: string;
beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), "museum-clock-"));
});
afterEach(() => {
  vi.restoreAllMocks();
  rmSync(home, { recursive: true, force: true });
});

test.each([-HOUR_MS, HOUR_MS])(
  "the wall clock jumps by %i ms: commits, losses and a failed log's return come as before",
  async (jump) => {
    const [ring, disk] = [new FakeRing(), new FakeDisk()];
    const source = new FakeSource(ring);
    const collector = await Collector.over({
      source,
      home,
      openLog: disk.opener(() => true),
      commitIntervalMs: 20,
    });
    await collector.registrations.register({ app: "a", process: "p", cgroupId: 1 });
    const folder = join(home, "a");
    mkdirSync(folder, { recursive: true });
    const put = (begin: number) =>
      ring.put({ process: 1, kind: RingKind.SEND, local: 1, remote: 2, begin, length: 1 });
    put(0);
    ring.busyAt = 1;
    put(1); // its producer has not finished it when the clock jumps
    await expect.poll(() => disk.events(folder).length).toBe(1);
    const draining = collector.drain();
    const now = Date.now;
    vi.spyOn(Date, "now").mockImplementation(() => now.call(Date) + jump);
    setTimeout(() => {
      ring.busyAt = -1;
    }, 50);
    await draining;
    put(2);
    ring.judge(1, RingVerdict.UDP);
    const count = () =>
      disk.events(folder).map((event) => (event.type === "gap" ? `gap ${event.reason}` : event.type));
    await vi.waitFor(() => expect(count()).toEqual(["send", "send", "send", "gap udp"]), { timeout: 30_000 });
    disk.failures.set(folder, ["before"]);
    put(3);
    await vi.waitFor(() => expect(collector.stats().logErrors).toBe(1), { timeout: 30_000 });
    vi.spyOn(Date, "now").mockImplementation(() => now.call(Date));
    await vi.waitFor(() => expect(count().length).toBe(5), { timeout: 30_000 });
    await collector.close();
  },
);
