/**
 * A loss that no record told (its process fell silent) was taken from the kernel and put into the columns, but no commit was due until
 * some process did something again: until then readers of the log saw clean evidence where events were missing.
 */
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test, vi } from "vitest";
import { Collector } from "../../src/engine/collect.ts";
import { FakeDisk, FakeRing, FakeSource } from "../unit/collect-fakes.ts";

test("a silent process's loss is in the log soon, and so is a gap for missed programs", async () => {
  const home = mkdtempSync(join(tmpdir(), "museum-silent-"));
  const [ring, disk] = [new FakeRing(), new FakeDisk()];
  const source = new FakeSource(ring);
  const collector = await Collector.over({
    source,
    home,
    openLog: disk.opener(() => true),
    commitIntervalMs: 20,
  });
  await collector.register({ app: "a", process: "p", cgroupId: 1 });
  const folder = join(home, "a");
  mkdirSync(folder, { recursive: true });
  ring.lose(1, 3);
  await vi.waitFor(() => expect(disk.events(folder)).toMatchObject([{ type: "gap", lost: 3 }]), {
    timeout: 30_000,
  });
  ring.misses += 1;
  await vi.waitFor(() => expect(disk.events(folder)).toHaveLength(2), { timeout: 30_000 });
  await collector.close();
  rmSync(home, { recursive: true, force: true });
});
