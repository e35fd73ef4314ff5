import { expect } from "vitest";
import { until, withRig } from "../daemon/rig.ts";
import { type Answer, fromNowhere } from "./answer.ts";
import { REDIS_PROCESSES, RedisApp } from "./redis-app.ts";
import { restartable } from "./restartable.ts";

restartable(
  "redis with a replica and a client: killed and restarted twice, every increment counts once, in both",
  () =>
    withRig("redis-pair", async (rig) => {
      await rig.collect();
      const app = new RedisApp(rig, 2500);
      await app.start();
      for (const round of [1, 2]) {
        await until("it counts", () => app.answers().length > round * 150);
        await rig.json("checkpoint", rig.app, "--coordinated", "--driver", "criu");
        const atCheckpoint = app.answers().length;
        await until("it goes on", () => app.answers().length > atCheckpoint + 50);
        for (const name of round === 1 ? REDIS_PROCESSES : REDIS_PROCESSES.slice(0, 1))
          rig.cgroup(name).kill();
        await until("it is dead", () => !rig.cgroup("primary").populated);
        const answer = await rig.json<Answer>("restart", rig.app);
        expect(answer.restarted.map(({ checkpoint }) => checkpoint)).toEqual([round, round, round]);
        expect(fromNowhere(answer)).toEqual([]);
      }
      expect(await app.outcome(40_000)).toBeUndefined();
    }),
);
