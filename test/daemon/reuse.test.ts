/**
 * Pids and ports are used again: the same pid in another process, the same pid in the next incarnation of a process, the same four-tuple
 * in another connection. What belongs to one must not be taken for the other's: through the real capture, to the last byte.
 */
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { expect, test } from "vitest";
import { isUnit } from "../../src/log/complete-cut.ts";
import type { CheckpointEvent, Event } from "../../src/model/event.ts";
import { compile } from "../native/c-build.ts";
import { tile } from "../native/tiling.ts";
import { ECHO, freePort, missing, type Rig, until, withRig } from "./rig.ts";

/** Choosing a pid takes a right in the pid namespace (CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE). */
const program = missing === undefined ? compile("talk_again", ["test/native/c/talk_again.c"]) : "";
const canChoose =
  missing === undefined && spawnSync(program, [String(freePid()), "1", "1", "0", "rst"]).status !== 3;
const live = test.skipIf(missing !== undefined);
const choosing = test.skipIf(!canChoose);

/** Below 300: the kernel gives those while a machine starts, and not again when it begins anew from the lowest (RESERVED_PIDS). */
function freePid(): number {
  for (let pid = 299; pid > 1; pid -= 1) if (!existsSync(`/proc/${pid}`)) return pid;
  throw new Error("no free process id below 300");
}

async function echoServer(rig: Rig): Promise<string> {
  const port = String(await freePort());
  await rig.run("server", process.execPath, "-e", ECHO, port);
  await until("the server listens", () => rig.output("server").includes("listening"));
  return port;
}

/** Runs to its end. */
async function talk(rig: Rig, name: string, ...args: string[]): Promise<void> {
  const { code, out, err } = await rig.cli("run", rig.app, name, "--", program, ...args);
  expect([code, err]).toEqual([0, expect.anything()]);
  if (args[0] !== "0") expect(out).toContain(`${args[0]} ${args[3]}`);
}

interface Talked {
  readonly channel: string;
  readonly sent: number;
}

/** What a process sent by TCP, by channel, in order of the first byte. */
function sentBy(events: readonly Event[], process: string): Talked[] {
  const found = new Map<string, { channel: string; sent: number }>();
  for (const event of events) {
    if (event.type !== "send" || event.process !== process || !event.channel.startsWith("tcp:")) continue;
    if (isUnit(event.channel)) continue;
    const one = found.get(event.channel) ?? { channel: event.channel, sent: 0 };
    found.set(event.channel, one);
    one.sent += event.end - event.begin;
  }
  return [...found.values()];
}

/** Every range stands where the one before it ended, and the other end received what was sent. */
function expectWhole(events: readonly Event[]): void {
  const { covered, faults } = tile(events);
  expect(faults).toEqual([]);
  for (const [key, bytes] of covered) {
    if (!key.includes(" tcp:")) continue;
    const other = key.startsWith("send") ? key.replace("send", "receive") : key.replace("receive", "send");
    expect([key, covered.get(other)]).toEqual([key, bytes]);
  }
}

choosing("one pid in two processes, and again in the next incarnation of the first", () =>
  withRig("pid-reuse", async (rig) => {
    await rig.collect();
    const port = await echoServer(rig);
    const pid = String(freePid());
    const ports = [String(await freePort()), String(await freePort()), String(await freePort())];
    await talk(rig, "first", pid, ports[0]!, port, "1000", "rst");
    await talk(rig, "second", pid, ports[1]!, port, "700", "rst");
    const { code, err } = await rig.cli(
      ...["run", rig.app, "first", "--fresh", "--", program, pid, ports[2]!, port, "400", "rst"],
    );
    expect([code, err]).toEqual([0, expect.anything()]);
    const events = await rig.events();
    const [before, after] = sentBy(events, "first");
    const [second, ...more] = sentBy(events, "second");
    expect([before?.sent, second?.sent, after?.sent, more]).toEqual([1000, 700, 400, []]);
    expect(new Set([before!.channel, second!.channel, after!.channel]).size).toBe(3);
    expectWhole(events);
    // The second incarnation has nothing of the first: its lines stand behind the rollback to 0.
    const of = events.filter((event) => event.process === "first");
    const rollback = of.findIndex((event) => event.type === "rollback" && event.checkpoint === 0);
    expect(
      of.slice(0, rollback).every((event) => !("channel" in event) || event.channel !== after!.channel),
    ).toBe(true);
    expect(
      of.slice(rollback).every((event) => !("channel" in event) || event.channel !== before!.channel),
    ).toBe(true);
  }),
);

for (const end of ["rst", "fin"])
  live(`one four-tuple in three connections of three processes, closed by ${end.toUpperCase()}`, () =>
    withRig(`port-reuse-${end}`, async (rig) => {
      await rig.collect();
      const port = await echoServer(rig);
      const local = String(await freePort());
      await talk(rig, "first", "0", local, port, "1000", end);
      await talk(rig, "second", "0", local, port, "700", end);
      await rig.run("third", program, "0", local, port, "400", "hold");
      await until("the third has talked", () => rig.output("third").includes(" 400"));
      const { checkpoints } = await rig.json<{ checkpoints: { process: string }[] }>(
        ...["checkpoint", rig.app, "--coordinated", "--driver", "none"],
      );
      expect(checkpoints.length).toBeGreaterThanOrEqual(2);
      const events = await rig.events();
      const talked = ["first", "second", "third"].map((name) => sentBy(events, name));
      expect(talked.map((all) => all.map(({ sent }) => sent))).toEqual([[1000], [700], [400]]);
      const channels = talked.map(([one]) => one!.channel);
      expect(new Set(channels).size).toBe(3);
      expectWhole(events);
      // The server's cut names all three, each with its own bytes.
      const cutOf = (process: string) =>
        events.findLast(
          (event): event is CheckpointEvent => event.type === "checkpoint" && event.process === process,
        )!.cut!;
      expect(channels.map((channel) => cutOf("server").received.get(channel))).toEqual([1000, 700, 400]);
      expect(cutOf("third").sent.get(channels[2]!)).toBe(400);
      expect(cutOf("third").sent.get(channels[0]!)).toBeUndefined();
    }),
  );
