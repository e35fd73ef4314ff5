/** The collector of a home takes memory rings beside the kernel's ring: one log, one socket, one set of counters. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, expect, test } from "vitest";
import type { RecoveryLine } from "../../src/model/recovery-line.ts";
import { makeDsm, runKernel } from "../dsm/dsm-build.ts";
import { sized } from "../size.ts";
import { missing, type Rig, until, withRig } from "./rig.ts";

const live = test.skipIf(missing !== undefined);
let kernels = "";
beforeAll(() => {
  kernels = makeDsm();
});

interface Answer extends RecoveryLine {
  readonly unrecorded?: readonly string[];
}

/** Goes on for some ten seconds if nobody ends it. */
const SLOW = ["sor", "--n", "64", "--iterations", "1000", "--pause-us", "10000"];

function words(rig: Rig, kernel = ["tsp", "--n", "9"]): string[] {
  mkdirSync(rig.path("images"), { recursive: true });
  const where = ["--collector", join(rig.home, "rings.sock"), "--application", rig.app];
  return [...kernel, "--processes", "2", "--every", "5", "--images", rig.path("images"), ...where];
}

live("one collector records a DSM and a program of the kernel's; one line answers for both", () =>
  withRig("both", async (rig) => {
    const collector = await rig.collect();
    expect(statSync(join(rig.home, "rings.sock")).mode & 0o777).toBe(0o600);
    await rig.run("other", "sleep", "60");
    expect(await rig.cli("checkpoint", rig.app, "other", "--driver", "none")).toMatchObject({ code: 0 });
    expect(await runKernel(kernels, ...words(rig))).toMatchObject({ correct: true, recordsLost: 0 });
    await until("both ends are in the log", async () =>
      (await rig.events()).some(({ type }) => type === "page-copy"),
    );
    const answer = await rig.json<Answer>("compute", rig.app, "--failed", "p1,h1", "--dsm", "exact");
    expect(answer.line.map(({ process }) => process)).toEqual(["h0", "h1", "other", "p0", "p1"]);
    expect(answer.line.find(({ process }) => process === "other")?.action).toBe("continue");
    expect(answer).not.toHaveProperty("unrecorded");
    const client = await rig.client();
    const copies = /^recovery_line_events_total\{kind="page[_-]copy"\} (\d+)$/m.exec(await client.metrics());
    client.close();
    expect(Number(copies?.[1])).toBeGreaterThan(0);
    const twice = await rig.cli("collect-rings");
    expect(twice).toMatchObject({ code: 1, err: expect.stringContaining("memory rings are being taken at") });
    collector.child.kill("SIGTERM");
    expect(await collector.ended).toMatchObject({ code: 0, err: "" });
    // The DSM came to its end before, the other program runs on.
    const dark = await rig.cli("compute", rig.app, "--failed", "p1,h1", "--dsm", "exact", "--json");
    expect([dark.code, (JSON.parse(dark.out) as Answer).unrecorded]).toEqual([3, ["other"]]);
  }),
);

live.each(["SIGKILL", "SIGTERM"] as const)(
  "a collector ended by %s: its runtimes stop, nobody of theirs continues, and the next collector begins anew",
  (signal) =>
    withRig("ended", async (rig) => {
      const first = await rig.collect();
      const slow = spawn(join(kernels, "dsm-kernels"), words(rig, SLOW), {
        stdio: ["ignore", "ignore", "pipe"],
      });
      let said = "";
      slow.stderr.on("data", (text: Buffer) => {
        said += text.toString();
      });
      const ended = once(slow, "close");
      await until("it is recorded", async () => {
        const events = await rig.events().catch(() => []);
        return ["p0", "p1"].every((name) =>
          events.some((e) => e.process === name && e.type === "checkpoint"),
        );
      });
      const { processes } = await rig.json<{ processes: { process: string; state: string }[] }>(
        "status",
        rig.app,
      );
      expect(processes.map(({ process, state }) => [process, state])).toEqual(
        ["h0", "h1", "p0", "p1"].map((name) => [name, "connected"]),
      );
      expect(await rig.cli("checkpoint", rig.app, "p0")).toMatchObject({
        code: 2,
        err: expect.stringContaining("takes its own checkpoints"),
      });
      first.child.kill(signal);
      expect((await first.ended).code).toBe(signal === "SIGTERM" ? 0 : null);
      expect(await ended).toEqual([70, null]);
      expect(said).toContain("the collector is gone");

      const dark = await rig.cli("compute", rig.app, "--failed", "p1", "--json");
      const answer = JSON.parse(dark.out) as Answer;
      expect([dark.code, answer.outcome, answer.unrecorded]).toEqual([3, "tainted", ["h0", "h1", "p0"]]);
      expect(answer.line.some(({ action }) => action === "continue")).toBe(false);

      if (signal === "SIGTERM" && sized(false, true)) return; // the next one finds what it finds after SIGKILL
      const second = await rig.collect();
      const gaps = (await rig.events()).filter(({ type }) => type === "gap").map(({ process }) => process);
      expect(gaps.sort()).toEqual(["h0", "h1", "p0", "p1"]);
      expect(await rig.json<Answer>("compute", rig.app).catch((error: Error) => error.message)).toContain(
        "tainted",
      );

      expect(await runKernel(kernels, ...words(rig))).toMatchObject({ correct: true });
      await until("the second run is recorded", async () => {
        const events = await rig.events();
        return events.filter(({ type }) => type === "rollback").length === 4;
      });
      expect((await rig.json<Answer>("compute", rig.app, "--failed", "p1,h1")).outcome).toBe("clean");
      second.child.kill("SIGTERM");
      expect((await second.ended).code).toBe(0);
    }),
);
