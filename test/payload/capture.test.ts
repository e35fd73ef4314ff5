/** Real TCP traffic against what the payload log says was sent: every byte, and nothing that was not. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { pattern } from "./pattern.ts";
import { missing, PayloadRig, Recorded, streamsOf, type Traffic } from "./rig.ts";

const MIB = 1 << 20;
let rig: PayloadRig | undefined;
afterEach(async () => {
  await rig?.remove();
  rig = undefined;
});

const CASES: Record<string, Traffic> = {
  "small writes": { bytes: 200_000, largestWrite: 100 },
  "large sends, as GSO packets of up to 64 KiB": { bytes: 4 * MIB, largestWrite: MIB },
  IPv6: { family: 6, bytes: MIB, largestWrite: 100_000 },
  "two connections at once": { connections: 2, bytes: MIB },
  "forty connections, one after the other, of the same addresses": {
    connections: 40,
    bytes: 5000,
    mode: "reuse",
  },
  "sequence numbers that wrap": { bytes: 2 * MIB, largestWrite: 50_000, mode: "wrap" },
  "a tiny receive buffer": { bytes: 300_000, largestWrite: 50_000, receiveBuffer: 2048 },
  "lost packets, in a network namespace of its own": {
    connections: 2,
    bytes: MIB,
    largestWrite: 30_000,
    namespace:
      "nft 'add table inet t; add chain inet t i { type filter hook input priority 0; }; add rule inet t i tcp dport 1-65535 numgen random mod 20 == 0 drop'",
  },
  "packets lost on their way out": {
    bytes: MIB,
    largestWrite: 30_000,
    namespace:
      "nft 'add table inet t; add chain inet t o { type filter hook output priority 0; }; add rule inet t o tcp dport 1-65535 numgen random mod 20 == 0 drop'",
  },
};

describe.skipIf(missing !== undefined)(`every byte that was sent (${missing?.reason ?? "supported"})`, () => {
  let recorded: Recorded;
  beforeAll(() => {
    recorded = new Recorded("bytes");
  });
  afterAll(() => recorded?.remove());

  test.for(Object.entries(CASES))("%s", async ([, traffic]) => {
    rig = new PayloadRig(recorded);
    const logger = await rig.log();
    rig.send(traffic);
    const { lostBytes, failedBytes, writtenBytes } = await logger.flush();
    const streams = 2 * (traffic.connections ?? 1);
    expect({ lostBytes, failedBytes }).toEqual({ lostBytes: 0, failedBytes: 0 });
    expect(writtenBytes).toBeGreaterThanOrEqual(streams * traffic.bytes);
    const store = rig.store();
    const channels = await streamsOf(store, streams);
    expect(channels.size).toBe(streams);
    for (const [stream, channel] of channels) {
      expect(await store.ranges(channel)).toEqual([{ begin: 0, end: traffic.bytes }]);
      const got = await store.read(channel, 0, traffic.bytes);
      expect(Buffer.compare(got!, pattern(stream, 0, traffic.bytes))).toBe(0);
      expect(await store.read(channel, 0, traffic.bytes + 1)).toBeUndefined();
    }
    await store.close();
  });

  test("an urgent byte is a hole, the bytes around it are not", async () => {
    rig = new PayloadRig(recorded);
    const logger = await rig.log();
    rig.send({ bytes: 10_000, mode: "urgent" });
    await logger.flush();
    const store = rig.store();
    const channel = (await streamsOf(store, 1)).get(0)!;
    expect(await store.ranges(channel)).toEqual([
      { begin: 0, end: 5000 },
      { begin: 5001, end: 10_000 },
    ]);
    expect(await store.read(channel, 4990, 5010)).toBeUndefined();
    expect(await store.read(channel, 5001, 10_000)).toEqual(pattern(0, 5001, 10_000));
    await store.close();
  });

  test("what others send is not kept", async () => {
    rig = new PayloadRig(recorded);
    const logger = await rig.log({ cgroup: rig.cgroups.path("p") });
    rig.cgroups.make("stranger");
    await logger.flush();
    const { spawnSync } = await import("node:child_process");
    const script = `const n=require("net");n.createServer(c=>c.on("data",d=>{c.end(d)})).listen(0,"127.0.0.1",function(){n.connect(this.address().port,"127.0.0.1").on("data",()=>process.exit()).write("secret")})`;
    spawnSync(process.execPath, ["-e", script]);
    expect(await logger.flush()).toMatchObject({ writtenBytes: 0, lostBytes: 0 });
  });
});
