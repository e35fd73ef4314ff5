import { expect, test } from "vitest";
import { CriuDriver } from "../../src/restart/driver-criu.ts";
import { findCriu } from "../../src/restart/driver-criu-find.ts";
import { missing, type Rig, until, withRig } from "../daemon/rig.ts";
import { NatsApp } from "./nats-app.ts";

const criu = await findCriu();
const works = criu.found !== undefined && (await new CriuDriver(criu.found).check()).works;
const restartable = test.skipIf(missing !== undefined || !works);

interface Connection {
  readonly process: string;
  readonly sends: string;
  readonly receives: string;
  readonly sent: number;
  readonly received: number;
}

interface Answer {
  readonly restarted: readonly { process: string; action: string; checkpoint: number }[];
  readonly connections: readonly Connection[];
  readonly inTransit: readonly { place: string }[];
  readonly passedOver: readonly unknown[];
}

/** A right result alone proves nothing: at the line nobody has received what is not sent. Returns how many channels were compared. */
function nothingFromNowhere({ connections }: Answer): number {
  const sent = new Map(connections.map((one) => [one.sends, one.sent]));
  for (const { receives, received } of connections)
    expect(received, receives).toBeLessThanOrEqual(sent.get(receives) ?? -1);
  return connections.length;
}

/** Each process on its own, while the others go on; whoever receives comes before its sender, so that the line needs no older ones. */
async function independently(rig: Rig): Promise<void> {
  for (const name of ["subscriber", "nats-2", "nats-1", "publisher"])
    await rig.json("checkpoint", rig.app, name, "--driver", "criu");
}

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
        app.kill();
        const answer = await rig.json<Answer>("restart", rig.app);
        expect(answer.restarted.map(({ checkpoint }) => checkpoint)).toEqual([round, round, round, round]);
        expect(nothingFromNowhere(answer)).toBe(6);
      }
      expect(await app.outcome(30_000)).toBeUndefined();
    }),
);

restartable("independent checkpoints and a payload log: the same", () =>
  withRig("nats-alone", async (rig) => {
    await rig.collect();
    const app = new NatsApp(rig, 5000, "--payload");
    await app.start();
    for (const round of [1, 2]) {
      await until("messages flow", () => app.numbers().length > round * 200);
      await independently(rig);
      const atCheckpoint = app.numbers().length;
      await until(
        `it goes on behind ${atCheckpoint} in round ${round}`,
        () => app.numbers().length > atCheckpoint + 100,
      );
      app.kill();
      const { code, out, err } = await rig.cli("restart", rig.app);
      console.log(code, out, err);
      expect(code).toBe(0);
    }
    expect(await app.outcome(30_000)).toBeUndefined();
  }),
);
