/** What the logger misses is a hole, whatever the reason, and never another byte. */
import { statSync } from "node:fs";
import { join } from "node:path";
import { afterEach, describe, expect, test } from "vitest";
import type { PayloadLog } from "../../src/payload/payload-log.ts";
import { pattern } from "./pattern.ts";
import { missing, PayloadRig } from "./rig.ts";

const MIB = 1 << 20;
let rig: PayloadRig | undefined;
afterEach(async () => {
  await rig?.remove();
  rig = undefined;
});

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Bytes of the channel that are there; all of them are those of one of the streams. */
async function checked(store: PayloadLog, channel: string, streams: readonly number[]): Promise<number> {
  let bytes = 0;
  const possible = new Set(streams);
  for (const { begin, end } of await store.ranges(channel)) {
    const got = await store.read(channel, begin, end);
    expect(got).toBeDefined();
    for (const stream of [...possible])
      if (Buffer.compare(got!, pattern(stream, begin, end)) !== 0) possible.delete(stream);
    bytes += end - begin;
  }
  expect(possible.size).toBeGreaterThan(0);
  return bytes;
}

describe.skipIf(missing !== undefined)(`holes (${missing?.reason ?? "supported"})`, () => {
  test("killed while bytes flow, and started again: connections that live on keep their names and offsets", async () => {
    rig = new PayloadRig("killed");
    const first = await rig.log();
    const total = 24 * MIB;
    const traffic = rig.sendBeside({ bytes: total, largestWrite: 20_000 });
    await pause(60);
    process.kill(first.pid, "SIGKILL");
    await pause(30);
    const second = await rig.log();
    expect(await traffic).toBe(0);
    await expect(first.flush()).rejects.toMatchObject({ code: "RL_NOT_SUPPORTED" });
    await second.flush();
    expect(rig.ended).toHaveLength(1);
    const store = rig.store();
    for (const channel of await store.channels()) {
      const bytes = await checked(store, channel, [0, 1]);
      const { end } = (await store.ranges(channel)).at(-1)!;
      expect(end).toBeLessThanOrEqual(total);
      if (bytes < end) expect(await store.read(channel, 0, end)).toBeUndefined();
    }
    await store.close();
  });

  test("a ring that is full: lost bytes are counted, the rest is right", async () => {
    rig = new PayloadRig("full");
    const logger = await rig.log({ ringMib: 1, whenFull: "lose" });
    process.kill(logger.pid, "SIGSTOP");
    rig.send({ bytes: 3 * MIB, largestWrite: 50_000 });
    process.kill(logger.pid, "SIGCONT");
    rig.send({ bytes: 1000 });
    const { lostBytes, writtenBytes } = await logger.flush();
    expect(lostBytes).toBeGreaterThan(0);
    expect(writtenBytes + lostBytes).toBeGreaterThanOrEqual(6 * MIB + 2000);
    const store = rig.store();
    expect(await store.figures()).toMatchObject({ lostBytes, damagedBytes: 0 });
    let kept = 0;
    for (const channel of await store.channels()) kept += await checked(store, channel, [0, 1]);
    expect(kept).toBeLessThan(6 * MIB + 2000);
    await store.close();
  });

  test("a ring that is full, and bytes that wait for it: nothing is lost, the application is slowed", async () => {
    rig = new PayloadRig("held");
    const logger = await rig.log({ ringMib: 1 });
    process.kill(logger.pid, "SIGSTOP");
    let done = false;
    const traffic = rig.sendBeside({ bytes: 3 * MIB, largestWrite: 50_000 }).finally(() => {
      done = true;
    });
    await pause(500);
    expect(done).toBe(false);
    process.kill(logger.pid, "SIGCONT");
    expect(await traffic).toBe(0);
    const flushed = await logger.flush();
    expect(flushed.heldPackets).toBeGreaterThan(0);
    expect(flushed).toMatchObject({ lostBytes: 0, failedBytes: 0 });
    const store = rig.store();
    for (const channel of await store.channels()) {
      expect(await store.ranges(channel)).toEqual([{ begin: 0, end: 3 * MIB }]);
      await checked(store, channel, [0, 1]);
    }
    await store.close();
  });

  test("files are for their owner alone, and there is no more on disk than the limit", async () => {
    rig = new PayloadRig("limit");
    const logger = await rig.log({ segmentMib: 1, limitMib: 4 });
    rig.send({ bytes: 6 * MIB, largestWrite: 100_000 });
    await logger.flush();
    expect(statSync(rig.folder).mode & 0o777).toBe(0o700);
    const sizes = rig.segments.map((file) => statSync(file));
    expect(sizes.map(({ mode }) => mode & 0o777)).toEqual(sizes.map(() => 0o600));
    expect(sizes.reduce((sum, { blocks }) => sum + blocks * 512, 0)).toBeLessThanOrEqual(4 * MIB);
    const store = rig.store();
    for (const channel of await store.channels()) await checked(store, channel, [0, 1]);
    await store.close();
  });

  test("where it cannot start it says why", async () => {
    rig = new PayloadRig("refused");
    await expect(rig.log({ cgroup: join(rig.appDir, "nowhere") })).rejects.toMatchObject({
      code: "RL_NOT_SUPPORTED",
      message: expect.stringContaining("No such file"),
    });
    await expect(rig.log({ pinDir: "/sys/fs/bpf/nothing-here" })).rejects.toThrow(/no capture is pinned/);
    await expect(rig.log({ ringMib: 3 })).rejects.toThrow(/power of two/);
  });
});
