/** A container of podman that runs already, on podman's bridge, as a process of an application. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { restartable } from "../restart/restartable.ts";
import { isHeld, Podman, withoutPodman } from "./podman.ts";
import { type Rig, until, withRig } from "./rig.ts";

/** Adds 1 to a number in the container's redis on one connection, and ends where the answer is not the next one. */
const COUNTER = `use IO::Socket::INET; $|=1; my $s = IO::Socket::INET->new(PeerAddr => $ARGV[0]) or die;
for (my $n = 1;; $n++) { syswrite($s, "INCR k\\r\\n"); my $b = ""; while ($b !~ /\\n/) { sysread($s, my $x, 99) or die "closed"; $b .= $x }
$b =~ /:$n\\r/ or die "got $b for $n"; print "$n\\n"; select(undef,undef,undef,.01) }`;

const reason = withoutPodman();

async function told(rig: Rig, ...args: string[]): Promise<{ code: number | null; err: string }> {
  const { code, err } = await rig.cli(...args);
  return { code, err };
}

test.skipIf(reason !== undefined)(
  "recorded across the bridge, both ends under one name; both stand in one coordinated checkpoint",
  { timeout: 120_000 },
  () =>
    withRig("container", async (rig) => {
      const podman = new Podman();
      const name = `rl-${rig.app}`;
      const address = await podman.serve(name);
      await rig.collect();
      await rig.run("client", "perl", "-e", COUNTER, address);
      const more = async (): Promise<void> => {
        const before = rig.output("client").length;
        await until("the client counts on", () => rig.output("client").length > before + 20);
      };
      await more();

      const attached = await told(rig, "attach", rig.app, "db", "--container", name, "--no-checkpoint");
      expect(attached, attached.err).toMatchObject({ code: 0 });
      const refused = await told(rig, "checkpoint", rig.app, "db", "--driver", "criu");
      expect(refused.code).not.toBe(0);
      expect(refused.err).toContain("runs in a container");
      await more();

      const events = await rig.events();
      const byProcess = (name: string, type: string): Set<string> =>
        new Set(
          events.flatMap((event) =>
            event.process === name && event.type === type && "channel" in event ? [event.channel] : [],
          ),
        );
      const [sent, received] = [byProcess("client", "send"), byProcess("db", "receive")];
      expect([...sent].filter((channel) => received.has(channel) && !channel.includes("/"))).toHaveLength(1);

      expect((await told(rig, "checkpoint", rig.app, "client")).code).toBe(0);
      await more();
      const impossible = await told(rig, "compute", rig.app, "--failed", "client");
      expect(impossible.code, "the answers that the client got undo what the container did").toBe(4);
      expect(impossible.err).toMatch(/db would have to go back to a moment before it was recorded/);

      const together = await told(rig, "checkpoint", rig.app, "--coordinated");
      expect(together, together.err).toMatchObject({ code: 0 });
      await more();
      expect((await told(rig, "detach", rig.app, "db")).code).toBe(0);
      expect(podman.podman("ps", "--format", "{{.Names}}")).toBe(name);
      await more();
      expect(rig.output("client")).not.toContain("got");
    }),
);

test.skipIf(reason !== undefined)(
  "a pod as one process: its containers are told apart by nobody, and what they say to each other is inside",
  { timeout: 120_000 },
  () =>
    withRig("pod", async (rig) => {
      const podman = new Podman();
      const pod = `rl-${rig.app}`;
      const sleeper = ["--infra-image", "redis-alone", "--infra-command", `${podman.server} --port 6391`];
      podman.podman("pod", "create", "--name", pod, "--network", "podman", ...sleeper);
      const inPod = (name: string, ...command: string[]): string =>
        podman.podman("run", "--detach", "--pod", pod, "--name", `${pod}-${name}`, "redis-alone", ...command);
      inPod("db", podman.server, "--port", "6390", "--save", "", "--protected-mode", "no");
      await until("redis listens", () => podman.podman("logs", `${pod}-db`).includes("Ready to accept"));
      inPod("client", podman.client, "-p", "6390", "-r", "-1", "-i", "0.01", "INCR", "k");
      const address = `${podman.inspect(podman.podman("pod", "inspect", "--format", "{{.InfraContainerID}}", pod), "{{.NetworkSettings.IPAddress}}")}:6390`;
      await rig.collect();
      await rig.run("outer", "perl", "-e", COUNTER.replaceAll("INCR k", "INCR other"), address);
      await until("it counts", () => rig.output("outer").length > 20);
      const attached = await told(rig, "attach", rig.app, "shop", "--pod", pod);
      expect(attached, attached.err).toMatchObject({ code: 0 });
      expect(attached.err).toContain("only cuts are recorded: shop can't be brought back from here");
      expect(rig.cgroup("shop").pids().length, "the infra container and two more").toBe(3);
      await until("it counts on", () => rig.output("outer").split("\n").length > 100);
      const rows = (await rig.events()).flatMap((one) => ("channel" in one ? [one] : []));
      const at = (process: string): Set<string> =>
        new Set(rows.flatMap((one) => (one.process === process ? [one.channel] : [])));
      const shared = [...at("outer")].filter((name) => at("shop").has(name) && !name.includes("/"));
      expect(shared, "both directions of the connection from outside of the pod").toHaveLength(2);
      expect(at("shop").size, "and the client's inside").toBeGreaterThan(2);
      const known = await told(rig, "attach", rig.app, "again", "--pod", pod);
      expect(known).toMatchObject({ code: 2 });
      expect(known.err).toContain(`process shop of ${rig.app}`);
      const member = await told(rig, "attach", rig.app, "again", "--container", `${pod}-db`);
      expect(member.err).toContain(`process shop of ${rig.app}`);
      podman.podman("pod", "rm", "--force", "--time", "0", pod);

      podman.podman("pod", "create", "--name", pod, "--infra=false");
      expect(await told(rig, "attach", rig.app, "again", "--pod", pod)).toMatchObject({ code: 2 });
      inPod("alone", podman.server, "--port", "6391");
      const without = await told(rig, "attach", rig.app, "again", "--pod", pod);
      expect(without.code).toBe(1);
      expect(without.err).toMatch(
        /not supported here: the pod .* has no cgroup of its own.*--container NAME/s,
      );
      podman.podman("pod", "rm", "--force", "--time", "0", pod);
      expect((await told(rig, "attach", rig.app, "again", "--pod", pod)).err).toContain(
        "podman knows no pod",
      );
    }),
);

(reason === undefined ? restartable : test.skip)(
  "a container that is removed, or killed, half way through its checkpoint: said in words, and nothing is left frozen or half recorded",
  { timeout: 180_000 },
  () =>
    withRig("removed", async (rig) => {
      const podman = new Podman();
      await rig.collect();
      const ways = {
        removed: (db: string) => podman.podman("rm", "--force", "--time", "0", db), // waits until podman is done with it
        killed: (db: string) => process.kill(podman.pidOf(db), "SIGKILL"),
      };
      for (const [way, end] of Object.entries(ways)) {
        const db = `rl-${way}-${rig.app}`;
        await podman.serve(db);
        const attached = await told(rig, "attach", rig.app, way, "--container", db, "--no-checkpoint");
        expect(attached, attached.err).toMatchObject({ code: 0 });
        const place = rig.cgroup(way).path;
        const checkpoint = rig.background("checkpoint", rig.app, way);
        await until("it is held", () => isHeld(rig));
        end(db);
        const { code, err } = await checkpoint.ended;
        if (way === "killed") {
          expect(code, err).toBe(1);
          expect(err).toMatch(new RegExp(`podman: it failed for the container ${db} .*It is exited`, "s"));
        } else if (code !== 0) expect(err).toMatch(/has ended|is gone|It is (exited|stopped)/);
        expect(isHeld(rig)).toBe(false);
        await until("its cgroup is empty", () => !rig.cgroup(way).populated);
        expect(existsSync(join(place, "cgroup.freeze")) && rig.cgroup(way).freezing, way).toBe(false);
        const client = await rig.client();
        await until("the collector knows its end", async () =>
          (await client.processes()).some(({ process: name, live }) => name === way && !live),
        );
        const known = (await client.processes()).find(({ process: name }) => name === way)!;
        client.close();
        expect(known).toMatchObject({ end: { code: 137 }, checkpoints: code === 0 ? 1 : 0 });
        const again = await rig.cli("checkpoint", rig.app, way);
        expect(again).toMatchObject({ code: 2 });
        expect(again.err).toContain(`process ${way} of ${rig.app} has ended`);
      }
    }),
);

test.skipIf(reason !== undefined)(
  "a followed container that is stopped and started again is its next life; half way between the two it has ended",
  { timeout: 120_000 },
  () =>
    withRig("again", async (rig) => {
      const podman = new Podman();
      const db = `rl-${rig.app}`;
      await podman.serve(db);
      await rig.collect();
      const follow = ["attach", rig.app, "db", "--container", db, "--follow"];
      const attached = await told(rig, ...follow, "--no-checkpoint");
      expect(attached, attached.err).toMatchObject({ code: 0 });
      const twice = await told(rig, ...follow, "--no-checkpoint");
      expect(twice.err, "it runs, and is recorded").toContain(`process db of ${rig.app} runs already`);
      const client = await rig.client();
      const now = async () => (await client.processes()).find(({ process }) => process === "db")!;
      podman.podman("stop", "--time", "5", db);
      await until("the collector knows its end", async () => !(await now()).live);
      expect((await now()).end, "redis ends by itself when it is told to").toEqual({ code: 0 });
      podman.podman("start", db);
      await until("its next life has its checkpoint", async () => {
        const { live, incarnation, checkpoints } = await now();
        return live && incarnation === 2 && checkpoints === 1;
      });
      client.close();
    }),
);
