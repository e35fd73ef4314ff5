import { existsSync } from "node:fs";
import { join } from "node:path";
import { expect } from "vitest";
import { seeded } from "../../src/demo/seeded.ts";
import { until, withRig } from "../daemon/rig.ts";
import { LONG } from "../size.ts";
import { restartInterrupted } from "./interrupted.ts";
import { NATS_PROCESSES, NatsApp } from "./nats-app.ts";
import { restartable } from "./restartable.ts";

/** `RESTART_SEED` and `RESTART_ROUNDS` repeat or lengthen it. */
const seed = Number(process.env["RESTART_SEED"] ?? Date.now() % 1_000_000);
const rounds = Number(process.env["RESTART_ROUNDS"] ?? 3);

restartable(
  `signals at any moment, several calls in a row: the last one ends well and nothing is lost (seed ${seed})`,
  { timeout: 60_000 + rounds * 60_000, ...LONG }, // nats.test.ts kills it in one phase after the other
  () =>
    withRig("interrupted", async (rig) => {
      console.log(`seed ${seed}: RESTART_SEED=${seed} repeats it`);
      const random = seeded(seed);
      await rig.collect();
      const app = new NatsApp(rig, 10_000 * (1 + rounds));
      await app.start();
      await until("messages flow", () => app.numbers().length > 100);
      let cutOff = 0;
      for (let round = 0; round < rounds; round += 1) {
        await rig.json("checkpoint", rig.app, "--coordinated", "--driver", "criu");
        if (random(3) > 0) app.kill();
        else rig.cgroup(NATS_PROCESSES[random(4)]!).kill();
        const one = await restartInterrupted(rig, random, 1 + random(4), 2500);
        cutOff += one.cutOff;
        console.log(`round ${round}: ${one.story.join("; ")}`);
        expect([one.last.code, one.last.code === 0 ? "" : one.last.err + one.last.out]).toEqual([0, ""]);
        expect(existsSync(join(rig.home, rig.app, "restart", "journal.json"))).toBe(false);
        for (const name of NATS_PROCESSES) {
          expect([name, rig.cgroup(name).populated, rig.cgroup(name).freezing]).toEqual([name, true, false]);
        }
        const atRestart = app.numbers().length;
        await until(
          "messages flow again",
          () => app.numbers().length > atRestart + 20 || app.numbers().length === app.messages,
          20_000,
        );
      }
      console.log(`${cutOff} calls cut off`);
      expect(await app.outcome(60_000)).toBeUndefined();
    }),
);
