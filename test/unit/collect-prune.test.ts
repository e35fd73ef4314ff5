/** Retention while collection goes on: the collector prunes a log it owns, and loses and doubles nothing. */
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { Collector } from "../../src/collect/collect.ts";
import { computeLine } from "../../src/compute/compute.ts";
import { RingKind } from "../../src/format/ring-layout.ts";
import { planCollection, rulesToKeep } from "../../src/gc/gc.ts";
import { openEventLog } from "../../src/log/append-log.ts";
import { verifyLog } from "../../src/log/verify-log.ts";
import { readEvidence } from "../../src/logs/read-evidence.ts";
import { FakeRing, FakeSource } from "./collect-fakes.ts";

test("pruned under load, also after a restart of the collector: positions go on, the line is the same, nothing is missing", async () => {
  const home = mkdtempSync(join(tmpdir(), "collect-prune-"));
  const ring = new FakeRing();
  const start = () =>
    Collector.over({ source: new FakeSource(ring), home, openLog: openEventLog, commitIntervalMs: 1 });
  let collector = await start();
  await collector.registrations.register({ app: "app", process: "p", cgroupId: 1 });
  let sent = 0;
  const channel = "tcp:00000001-00000002";
  const send = (count: number): void => {
    for (let n = 0; n < count; n += 1) {
      ring.put({ process: 1, kind: RingKind.SEND, local: 1, remote: 2, begin: sent, length: 1 });
      sent += 1;
    }
  };
  const checkpoint = async () => {
    const index = await collector.nextCheckpoint("app", "p");
    const cut = { sent: new Map([[channel, sent]]), received: new Map() };
    return collector.append("app", {
      type: "checkpoint",
      process: "p",
      checkpoint: index,
      usable: true,
      cut,
    });
  };
  const line = async () => {
    const evidence = await readEvidence(collector.logs.readBlocks("app"));
    // By the rule "logged" bytes whose receiver nobody knows would keep everything.
    const { oldest } = planCollection(evidence, rulesToKeep(evidence, undefined, "any"));
    return { oldest, ...computeLine(evidence, { failed: ["p"], dsm: "sequential", inTransit: "any" }) };
  };
  for (let round = 0; round < 6; round += 1) {
    send(3000);
    await collector.logs.rotate("app");
    await checkpoint();
  }
  const before = await line();
  const pruning = collector.logs.prune("app", before.oldest);
  send(500); // meanwhile
  const { bytes } = await pruning;
  expect(bytes).toBeGreaterThan(3 * 3000);
  expect(readdirSync(join(home, "app/segments")).length).toBeLessThan(3);
  expect(await line()).toMatchObject({
    line: before.line,
    inTransit: before.inTransit,
    evidence: { gaps: 0 },
  });
  send(500);
  const { position } = await checkpoint();
  expect(position).toBe(sent + 7);
  await collector.close();
  collector = await start();
  send(10);
  await collector.drain();
  expect((await line()).line).toMatchObject([{ process: "p", position, checkpoint: 7, action: "restore" }]);
  expect((await collector.logs.prune("app", (await line()).oldest)).bytes).toBeGreaterThanOrEqual(0);
  expect(collector.processes()).toMatchObject([{ lines: sent + 7 }]);
  await collector.close();
  expect((await verifyLog(join(home, "app"))).damages).toEqual([]);
  rmSync(home, { recursive: true, force: true });
});
