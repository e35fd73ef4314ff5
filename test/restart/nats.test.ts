import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect } from "vitest";
import { type Rig, until, withSharedCollector } from "../daemon/rig.ts";
import { LONG, sized } from "../size.ts";
import { type Answer, fromNowhere } from "./answer.ts";
import { NATS_PROCESSES, NatsApp } from "./nats-app.ts";
import { restartable } from "./restartable.ts";

const together = withSharedCollector("nats");

/** More than come until the test has seen enough. */
const MANY = 20_000;

function flip(file: string, at: number): void {
  const bytes = readFileSync(file);
  bytes[at] = bytes[at]! ^ 1;
  writeFileSync(file, bytes);
}

/** Each process on its own, while the others go on; whoever receives comes before its sender, so that the line needs no older ones. */
/** Returns the numbers that they have: what had to be tried again has used one. */
async function independently(rig: Rig): Promise<ReadonlyMap<string, number>> {
  const taken = new Map<string, number>();
  for (const name of ["subscriber", "nats-2", "nats-1", "publisher"]) {
    const { checkpoints } = await rig.json<{ checkpoints: { checkpoint: number }[] }>(
      ...["checkpoint", rig.app, name, "--driver", "criu"],
    );
    taken.set(name, checkpoints[0]!.checkpoint);
  }
  return taken;
}

restartable(
  "everybody is killed and comes back from a coordinated checkpoint: every message once, in order; and again",
  LONG, // once, by --fall-back below
  () =>
    together("nats-together", async (rig) => {
      const app = new NatsApp(rig, MANY);
      await app.start();
      for (const round of [1, 2]) {
        await until("messages flow", () => app.numbers().length > round * 200);
        await rig.json("checkpoint", rig.app, "--coordinated", "--driver", "criu");
        const atCheckpoint = app.numbers().length;
        await app.goesOn(atCheckpoint);
        app.kill();
        const answer = await rig.json<Answer>("restart", rig.app);
        expect(answer.restarted.map(({ checkpoint }) => checkpoint)).toEqual([round, round, round, round]);
        expect(answer.connections.length).toBe(6);
        expect(fromNowhere(answer)).toEqual([]);
      }
      expect(await app.outcome(30_000)).toBeUndefined();
    }),
);

restartable("independent checkpoints and a payload log: the same", () =>
  together("nats-alone", async (rig) => {
    const app = new NatsApp(rig, MANY, "--payload");
    await app.start();
    await until("messages flow", () => app.numbers().length > 100);
    // Else the first line may be the start of one server, which holds nothing of what its clients had sent.
    await rig.json("checkpoint", rig.app, "--coordinated", "--driver", "criu");
    let went = new Map<string, number>();
    for (const round of sized([2, 3], [2])) {
      await until("messages flow", () => app.numbers().length > round * 200);
      const taken = await independently(rig);
      const atCheckpoint = app.numbers().length;
      await app.goesOn(atCheckpoint);
      app.kill();
      const answer = await rig.json<Answer>("restart", rig.app);
      // What nats-2 told nats-1 of itself between their two checkpoints is an orphan: then the line is one checkpoint earlier, which is
      // where the process went in the round before.
      for (const { process, checkpoint } of answer.restarted)
        expect([taken.get(process), went.get(process) ?? 1]).toContain(checkpoint);
      went = new Map(answer.restarted.map(({ process, checkpoint }) => [process, checkpoint]));
      expect(answer.inTransit.map(({ place }) => place)).toContain("payload log");
      expect(answer.connections.length).toBe(6);
      expect(fromNowhere(answer)).toEqual([]);
    }
    expect(await app.outcome(30_000)).toBeUndefined();
  }),
);

restartable(
  "without a payload log what the images do not hold is refused by name; --fall-back goes back to where they do",
  () =>
    together("nats-refused", async (rig) => {
      const app = new NatsApp(rig, MANY);
      await app.start();
      await until("messages flow", () => app.numbers().length > 100);
      await rig.json("checkpoint", rig.app, "--coordinated", "--driver", "criu");
      await independently(rig);
      app.kill();
      for (const flags of [["--dry-run"], []]) {
        const { code, out } = await rig.cli("restart", rig.app, "--json", ...flags);
        expect(code).toBe(4);
        expect(JSON.parse(out).error.message).toMatch(
          /in transit at the line can't be replayed: \[\d+, \d+\) of tcp:/,
        );
      }
      for (const name of ["nats-1", "subscriber"]) expect(rig.cgroup(name).populated).toBe(false);
      const events = (await rig.events()).length;
      const planned = await rig.json<Answer>("restart", rig.app, "--fall-back", "--dry-run");
      expect(planned.passedOver.length).toBeGreaterThan(0);
      expect(planned.restarted.map(({ checkpoint }) => checkpoint)).toEqual([1, 1, 1, 1]);
      expect((await rig.events()).length).toBe(events); // a dry run leaves no trace
      const answer = await rig.json<Answer>("restart", rig.app, "--fall-back");
      expect(answer.restarted).toEqual(planned.restarted);
      expect(answer.connections.length).toBe(6);
      expect(fromNowhere(answer)).toEqual([]);
      expect(await app.outcome(30_000)).toBeUndefined();
    }),
);

restartable(
  "a survivor that is connected to the dead comes back with them; a damaged image is refused before it is killed",
  () =>
    together("nats-one", async (rig) => {
      const app = new NatsApp(rig, MANY);
      await app.start();
      await until("messages flow", () => app.numbers().length > 100);
      const wrong = await rig.cli("restart", rig.app);
      expect(wrong).toMatchObject({ code: 2, err: expect.stringContaining("nothing has failed") });
      await rig.json("checkpoint", rig.app, "--coordinated", "--driver", "criu");
      await app.goesOn(app.numbers().length); // the subscriber ends by itself with nats-2: only what it received since takes it back
      rig.cgroup("nats-2").kill();
      await until("it is dead", () => !rig.cgroup("nats-2").populated);
      const file = join(rig.home, rig.app, "images", "publisher", "1", "files", "pages-1.img");
      const image = readFileSync(file);
      flip(file, 4000);
      const survivor = rig.cgroup("publisher").pids()[0];
      const refused = await rig.cli("restart", rig.app);
      expect(refused).toMatchObject({ code: 4, err: expect.stringContaining(`image damaged: ${file}`) });
      expect(rig.cgroup("publisher").pids()).toContain(survivor);
      expect(rig.cgroup("publisher").freezing).toBe(false);
      writeFileSync(file, image);
      const answer = await rig.json<Answer>("restart", rig.app, "--failed", "nats-2");
      expect(answer.restarted.length).toBe(4); // because of orphans, or of shared connections
      expect(answer.alsoFailed.length).toBeGreaterThan(0);
      expect(answer.connections.length).toBe(6);
      expect(fromNowhere(answer)).toEqual([]);
      expect(await app.outcome(30_000)).toBeUndefined();
    }),
);

/** Kills the command as soon as its journal says `phase`; false if it was done before. */
async function killedAt(rig: Rig, phase: string): Promise<boolean> {
  const journal = join(rig.home, rig.app, "restart", "journal.json");
  const running = rig.background("restart", rig.app);
  const look = setInterval(() => {
    try {
      if (readFileSync(journal, "utf8").includes(`"${phase}"`)) running.child.kill("SIGKILL");
    } catch {
      // not yet there, or no more
    }
  }, 1);
  const { code } = await running.ended;
  clearInterval(look);
  return code === null;
}

restartable(
  "the command is killed again and again, in one phase after the other; each time the next call finishes, and nothing is lost",
  () =>
    together("nats-crash", async (rig) => {
      const app = new NatsApp(rig, MANY);
      await app.start();
      await until("messages flow", () => app.numbers().length > 100);
      const phases = sized(["killing", "restoring", "recording", "thawing"], ["restoring", "recording"]);
      let kills = 0;
      for (const phase of phases) {
        await rig.json("checkpoint", rig.app, "--coordinated", "--driver", "criu");
        app.kill();
        if (await killedAt(rig, phase)) kills += 1;
        const { code, out, err } = await rig.cli("restart", rig.app);
        if (code !== 0)
          expect(err).toContain("nothing has failed"); // it had been finished before the kill
        else expect(out).toContain("was cut off");
        expect(existsSync(join(rig.home, rig.app, "restart", "journal.json"))).toBe(false);
        for (const name of NATS_PROCESSES) expect(rig.cgroup(name).freezing).toBe(false);
        await app.goesOn(app.numbers().length);
      }
      expect(kills).toBeGreaterThanOrEqual(phases.length - 1);
      expect(await app.outcome(30_000)).toBeUndefined();
    }),
);
