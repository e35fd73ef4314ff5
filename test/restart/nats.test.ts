import { expect, test } from "vitest";
import { ProcessCgroup } from "../../src/restart/cgroups.ts";
import { CriuDriver } from "../../src/restart/driver-criu.ts";
import { findCriu } from "../../src/restart/driver-criu-find.ts";
import { missing, until, withRig } from "../daemon/rig.ts";
import { NATS_PROCESSES, NatsApp } from "./nats-app.ts";

const criu = await findCriu();
const works = criu.found !== undefined && (await new CriuDriver(criu.found).check()).works;
const restartable = test.skipIf(missing !== undefined || !works);

restartable(
  "everybody is killed and comes back from a coordinated checkpoint: every message once, in order; and again",
  () =>
    withRig("nats-together", async (rig) => {
      await rig.collect();
      const app = new NatsApp(rig, 1500);
      await app.start();
      for (const round of [1, 2]) {
        await until("messages flow", () => app.numbers().length > round * 200);
        await rig.json("checkpoint", rig.app, "--coordinated", "--driver", "criu");
        const atCheckpoint = app.numbers().length;
        await until("it goes on", () => app.numbers().length > atCheckpoint + 100);
        for (const name of NATS_PROCESSES) new ProcessCgroup(rig.app, name).kill();
        const { code, out, err } = await rig.cli("restart", rig.app);
        console.log(code, out, err);
        expect(code).toBe(0);
      }
      expect(await app.outcome(30_000)).toBeUndefined();
    }),
);
