/** A container of podman that runs already, on podman's bridge, as a process of an application. */
import { expect, test } from "vitest";
import { Podman, withoutPodman } from "./podman.ts";
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
