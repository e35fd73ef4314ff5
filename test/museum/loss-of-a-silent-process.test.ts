/**
 * A loss that no record told (its process fell silent) was taken from the kernel and put into the columns, but no commit was due until
 * some process did something again: until then readers of the log saw clean evidence where events were missing. Losses are no gaps any
 * more; the same must hold for verdicts, whose records may find no room.
 */
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test, vi } from "vitest";
import { Collector } from "../../src/collect/collect.ts";
import { RingKind, RingVerdict } from "../../src/format/ring-layout.ts";
import { FakeDisk, FakeRing, FakeSource } from "../unit/collect-fakes.ts";

test("a silent process's verdict is in the log soon", async () => {
  const home = mkdtempSync(join(tmpdir(), "museum-silent-"));
  const [ring, disk] = [new FakeRing(), new FakeDisk()];
  const source = new FakeSource(ring);
  const collector = await Collector.over({
    source,
    home,
    openLog: disk.opener(() => true),
    commitIntervalMs: 20,
  });
  await collector.registrations.register({ app: "a", process: "p", cgroupId: 1 });
  await collector.registrations.register({ app: "b", process: "q", cgroupId: 2 });
  const folder = join(home, "a");
  mkdirSync(folder, { recursive: true });
  ring.put({ process: 2, kind: RingKind.SEND, local: 1, remote: 2, begin: 0, length: 1 });
  const flag = { cgroupId: 1, incarnation: 1, bits: 1 << RingVerdict.UDP, other: 0, local: 0, remote: 0 };
  ring.verdicts.push(flag); // its record found no room
  await vi.waitFor(() => expect(disk.events(folder)).toMatchObject([{ type: "gap", reason: "udp" }]), {
    timeout: 30_000,
  });
  await collector.close();
  rmSync(home, { recursive: true, force: true });
});
