/** A real full disk: a small tmpfs, filled up again and again at other places. Needs the right to mount. */
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, statfsSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { EventLog } from "../../src/log/event-log.ts";
import { verifyLog } from "../../src/log/verify-log.ts";
import { hasCode } from "../../src/model/errors.ts";
import { eventsOf, sends, storedEvents } from "./log-rig.ts";

const root = mkdtempSync(join(tmpdir(), "recovery-line-full-"));
const run = (program: string, ...args: string[]): boolean => spawnSync(program, args).status === 0;
const mounted = run("mount", "-t", "tmpfs", "-o", "size=12m,mode=700", "recovery-line-test", root);
afterAll(() => {
  if (mounted) run("umount", root);
  rmSync(root, { recursive: true, force: true });
});
const dir = join(root, "app");
const ballast = join(root, "ballast");

/** Leaves `free` bytes. */
function fill(free: number): void {
  const { bavail, bsize } = statfsSync(root);
  writeFileSync(ballast, Buffer.alloc(Math.max(0, bavail * bsize - free)));
}

test.skipIf(!mounted)(
  "a full disk costs nothing that was acknowledged, and the log goes on once there is room",
  async () => {
    mkdirSync(dir, { mode: 0o700 });
    let acknowledged = 0;
    let full = 0;
    let log = await EventLog.open(dir, { create: true });
    for (let round = 0; round < 12; round += 1) {
      fill(round * 20_011);
      let error: unknown;
      for (let n = 0; n < 200 && error === undefined; n += 1)
        error = await log
          .append(sends("p", acknowledged, 300))
          .then(() => log.commit())
          .then(
            () => {
              acknowledged += 300;
            },
            (thrown: unknown) => thrown,
          );
      expect(hasCode(error, "RL_LOG_WRITE"), String(error)).toBe(true);
      full += 1;
      await expect(log.commit()).rejects.toMatchObject({ code: "RL_LOG_WRITE" }); // broken until it is opened anew
      await log.close();
      rmSync(ballast);
      log = await EventLog.open(dir, { create: false });
      const events = await eventsOf(log.readBlocks());
      // The commit under way is there whole or not at all.
      expect([acknowledged, acknowledged + 300]).toContain(events.length);
      acknowledged = events.length;
    }
    await log.close();
    expect(await storedEvents(dir)).toEqual([...sends("p", 0, acknowledged).events()]);
    expect((await verifyLog(dir)).damages).toEqual([]);
    console.log(`${full} times full, ${acknowledged} events kept`);
  },
  120_000,
);
