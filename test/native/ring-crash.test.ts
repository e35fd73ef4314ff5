import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { expect, test } from "vitest";
import { KernelSource } from "../../src/capture/kernel-source.ts";
import { kernelSupport } from "../../src/capture/kernel-support.ts";
import { decodeBlock } from "../../src/format/block.ts";
import { readLog } from "../../src/log/segment-reader.ts";
import type { Event } from "../../src/model/event.ts";
import { packageRoot } from "../../src/native/binding.ts";
import { builtCopy } from "../built.ts";
import { sized } from "../size.ts";
import { compile } from "./c-build.ts";
import { TestCgroups } from "./cgroups.ts";
import { ensureBpffs } from "./ring-rig.ts";
import { tile } from "./tiling.ts";

const KILLS = Number(process.env["RECOVERY_LINE_KILLS"] ?? sized(20, 4));
const RING_BYTES = 16 << 20;
const OWN = join(packageRoot(), "build/test/ring-crash");
const missing = kernelSupport().find((one) => ["addon", "permission"].includes(one.name) && !one.supported);

interface Life {
  readonly acks: number[];
  readonly stats: string | undefined;
}

/** From when on the time until a kill runs: of the process, of its collector, of its first acknowledgement. */
type Since = "start" | "ready" | "ack";

/** One collector process; it is killed `afterMs` later, or stopped in peace if undefined. */
async function live(options: string, afterMs: number | undefined, from: Since = "start"): Promise<Life> {
  const child = spawn(
    process.execPath,
    [join(packageRoot(), "test/native/collector-child.mjs"), join(OWN, "dist"), options],
    { stdio: ["ignore", "pipe", "inherit"] },
  );
  const acks: number[] = [];
  let stats: string | undefined;
  let timer: NodeJS.Timeout | undefined;
  const arm = () => {
    if (afterMs !== undefined) timer = setTimeout(() => child.kill("SIGKILL"), afterMs);
  };
  if (from === "start") arm();
  createInterface({ input: child.stdout! }).on("line", (line) => {
    const [word, rest] = [line.slice(0, line.indexOf(" ")), line.slice(line.indexOf(" ") + 1)];
    if (word === "ack") {
      acks.push(Number(rest));
      if (acks.length === 1 && from === "ack") arm();
      // Once: a second one, when it has said its figures, may meet a Node that handles signals no more.
      if (acks.length === 3 && afterMs === undefined) child.kill("SIGTERM");
    }
    if (word === "stats") stats = rest;
    else if (line === "ready" && from === "ready") arm();
  });
  await once(child, "close");
  clearTimeout(timer);
  if (afterMs === undefined) expect([child.exitCode, child.signalCode]).toEqual([0, null]);
  return { acks, stats };
}

async function stop(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  const closed = once(child, "close");
  child.kill(signal);
  await closed;
}

async function readEvents(folder: string): Promise<Event[]> {
  const events: Event[] = [];
  for await (const block of readLog(folder))
    for (const event of decodeBlock(block).columns.events()) events.push(event);
  return events;
}

test.skipIf(missing !== undefined)(
  `a collector killed ${KILLS} times under TCP load loses nothing acknowledged and doubles nothing`,
  async () => {
    ensureBpffs();
    builtCopy(OWN);
    const program = compile("tcp_load", ["test/native/c/tcp_load.c"]);
    const cgroups = new TestCgroups("rl-ring-crash");
    const home = mkdtempSync(join(tmpdir(), "ring-crash-"));
    const pinDir = `/sys/fs/bpf/rl-ring-crash-${process.pid}`;
    const registrations = ["server", "client"].map((name) => ({
      app: "load",
      process: name,
      cgroupId: cgroups.make(name),
    }));
    const options = JSON.stringify({
      home,
      pinDir,
      ringBytes: RING_BYTES,
      cgroupLevel: cgroups.level,
      registrations,
    });
    const acks: number[] = [];
    try {
      acks.push(...(await live(options, undefined)).acks); // selected before the first connection
      const server = cgroups.spawn("server", program, ["server", "0"]);
      const port = String((await once(server.stdout!, "data"))[0]).trim();
      const client = cgroups.spawn("client", program, ["client", port, "8", "30"]);
      // Every second one at work whatever the machine's speed; the others also in the middle of starting.
      for (let kill = 0; kill < KILLS; kill += 1) {
        const life =
          kill % 2 === 0
            ? live(options, Math.random() * 250, kill % 4 === 0 ? "ready" : "ack")
            : live(options, 100 + Math.random() * 400);
        acks.push(...(await life).acks);
      }
      await stop(client, "SIGTERM");
      await stop(server, "SIGKILL");
      const { acks: last, stats } = await live(options, undefined);
      acks.push(...last);
      const events = await readEvents(join(home, "load"));
      const { covered, faults } = tile(events);
      const lost = JSON.parse(stats!).lost.reduce((sum: number, one: number) => sum + one, 0);
      console.log(
        `${events.length} events, ${covered.size / 2} channels, ${acks.length} acknowledgements, lost ${lost}`,
      );
      expect(lost, "the ring was large enough").toBe(0);
      expect(faults.slice(0, 5)).toEqual([]);
      for (const [key, bytes] of covered) {
        if (!key.includes(" tcp:")) continue; // the server's standard output is a socket to this test
        const other = key.startsWith("send")
          ? key.replace("send", "receive")
          : key.replace("receive", "send");
        expect([key, covered.get(other)]).toEqual([key, bytes]);
      }
      const server0 = events.filter((event) => event.process === "server");
      for (const position of acks) expect(server0[position - 1]?.type).toBe("stable");
      expect(new Set(acks).size).toBe(acks.length);
      expect(acks.length).toBeGreaterThan(KILLS / 4);
    } finally {
      KernelSource.unpin(pinDir);
      rmSync(home, { recursive: true, force: true });
      await cgroups.remove();
    }
  },
  600_000, // two minutes with half a core
);
