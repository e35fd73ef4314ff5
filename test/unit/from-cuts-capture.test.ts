/** On logs of the real thing: LevelDB, the command, and connections that the kernel recorded. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { computeApp } from "../../src/compute/compute-app.ts";
import { computeFromCuts } from "../../src/compute/compute-from-cuts.ts";
import { type BlockHeader, parseBlock } from "../../src/format/block-header.ts";
import { EventColumns } from "../../src/format/event-columns.ts";
import { EventLog } from "../../src/log/event-log.ts";
import { openLogReader } from "../../src/log/segment-reader.ts";
import type { LineEntry, RecoveryLine } from "../../src/model/recovery-line.ts";
import { ASK, ECHO, freePort, missing, type Rig, until, withRig } from "../daemon/rig.ts";
import { sized } from "../size.ts";

const live = test.skipIf(missing !== undefined);
const decided = ({ line, inTransit, outcome, evidence }: RecoveryLine) => ({
  line,
  inTransit,
  outcome,
  evidence,
});

/** `rounds` of questions and answers between two processes, a checkpoint with a cut at each end of a round. */
async function pingPong(dir: string, rounds: number, perRound: number): Promise<void> {
  const log = await EventLog.open(dir, { create: true, application: "pingpong", segmentBytes: 200_000 });
  for (let round = 1; round <= rounds; round += 1) {
    for (const [process, peer] of [
      ["a", "b"],
      ["b", "a"],
    ] as const) {
      const columns = new EventColumns(process);
      for (let i = (round - 1) * perRound; i < round * perRound; i += 1) {
        columns.push({ type: "send", process, channel: process + peer, begin: i, end: i + 1 });
        columns.push({ type: "receive", process, channel: peer + process, begin: i, end: i + 1 });
      }
      const at = round * perRound;
      const cut = { sent: new Map([[process + peer, at]]), received: new Map([[peer + process, at]]) };
      columns.push({ type: "checkpoint", process, checkpoint: round, usable: true, cut });
      columns.push({ type: "send", process, channel: process + peer, begin: at, end: at + 1 });
      await log.append(columns);
    }
    await log.commit();
  }
  await log.close();
}

test("a log of many segments: cuts read a few blocks, events all of them, the line is one", async () => {
  const dir = mkdtempSync(join(tmpdir(), "recovery-line-cuts-"));
  try {
    await pingPong(join(dir, "pingpong"), 200, 500);
    const reader = await openLogReader(join(dir, "pingpong"));
    let read = 0;
    const cuts = {
      ...reader,
      heads: () => reader.heads(),
      block: (chain: number) => {
        read += 1;
        return reader.block(chain);
      },
    };
    const { ends } = reader;
    const log = { name: dir, cuts, blocks: () => reader.unchecked(), ends, close: () => reader.close() };
    const rules = { dsm: "sequential", inTransit: "any" } as const;
    const fast = await computeApp([log], rules);
    expect(fast.from).toBe("cuts");
    expect(read).toBeLessThan(20);
    expect(reader.lastChain).toBe(400);
    for (const workers of [0, 2]) {
      const slow = await computeApp([log], { ...rules, fromEvents: true, workers });
      expect(slow.from).toBe("events");
      expect(decided(fast.line)).toEqual(decided(slow.line));
    }
    expect(fast.line.line.map(({ checkpoint }) => checkpoint)).toEqual([200, 200]);
    await reader.close();
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
});

/** Its hash is a Buffer, or a Uint8Array, as it came in one piece or several. */
const plain = (header: BlockHeader) => ({ ...header, previousHash: Buffer.from(header.previousHash) });

async function line(rig: Rig, ...args: string[]): Promise<RecoveryLine> {
  const told = await rig.json<RecoveryLine>("compute", ...args);
  // How a process ended is told of a collector's logs alone.
  const entries = told.line.map(({ ended: _, ...entry }: LineEntry & { ended?: unknown }) => entry);
  return decided({ ...told, line: entries }) as RecoveryLine;
}

live("a captured run: the command gives one line from cuts, from events and from the exported file", () =>
  withRig("paths", async (rig) => {
    const collector = await rig.collect();
    const port = await freePort();
    await rig.run("server", process.execPath, "-e", ECHO, String(port));
    await until("the server listens", () => rig.output("server").includes("listening"));
    for (const client of ["c1", "c2"]) await rig.run(client, process.execPath, "-e", ASK, String(port), "20");
    const client = await rig.client();
    for (let round = 0; round < sized(3, 2); round += 1)
      for (const name of ["c1", "server", "c2"]) {
        const before = (await rig.events()).length;
        await until("they talk on", async () => (await rig.events()).length > before + 10);
        await rig.json("checkpoint", rig.app, name, "--driver", "none");
      }
    for (const name of ["c1", "c2", "server"]) rig.cgroup(name).kill();
    await until("all have ended", async () => (await client.processes()).every((one) => !one.live));
    // Of a live collector: single blocks, as many as cuts need.
    const collected = await client.log(rig.app);
    const fromLive = await computeFromCuts([collected], { dsm: "sequential", inTransit: "any" });
    if (fromLive.line === undefined) throw new Error(fromLive.reason);
    expect(await line(rig, rig.app)).toEqual(decided(fromLive.line));
    await expect(collected.block(collected.lastChain + 1000)).rejects.toThrow(/holds no block/);
    // Walked through, they come by windows: the same blocks.
    for await (const bytes of client.blocks(rig.app)) {
      const { header } = parseBlock(bytes);
      if (header.chain > collected.lastChain) break;
      const single = await collected.block(header.chain);
      expect(plain(single.header)).toEqual(plain(header));
    }
    client.close();
    collector.child.kill("SIGTERM");
    await collector.ended;
    const { code } = await rig.cli("export", rig.app, "--to", rig.path("events.jsonl"));
    expect(code).toBe(0);
    const told: RecoveryLine[] = [];
    for (const failed of [[], ["--failed", "c1"], ["--failed", "server,c2"]]) {
      const cuts = await line(rig, rig.app, ...failed);
      for (const workers of sized(["2", "0"], [failed.length === 0 ? "0" : "2"]))
        expect(await line(rig, rig.app, "--from-events", "--workers", workers, ...failed)).toEqual(cuts);
      expect(await line(rig, "--from", rig.path("events.jsonl"), ...failed)).toEqual(cuts);
      expect(cuts.line).toHaveLength(3);
      told.push(cuts);
    }
    // And the cuts did do: every usable checkpoint covers what its process did before.
    const reader = await openLogReader(join(rig.home, rig.app));
    const { ends } = reader;
    const blocks = () => reader.unchecked();
    const log = { name: rig.home, cuts: reader, blocks, ends, close: () => reader.close() };
    for (const [at, failed] of [["c1", "c2", "server"], ["c1"], ["server", "c2"]].entries()) {
      const options = { failed, dsm: "sequential", inTransit: "any" } as const;
      const found = await computeFromCuts([reader], options);
      if (failed.length === 3) expect(found.line).toEqual(fromLive.line);
      if (found.line === undefined) throw new Error(found.reason);
      expect(decided(found.line)).toEqual(told[at]);
      const all = await computeApp([log], { ...options, failed: () => failed, fromEvents: true });
      expect(decided(found.line)).toEqual(decided(all.line));
    }
    await reader.close();
  }),
);
