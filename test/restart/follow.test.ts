/**
 * A container that is removed and made anew under its name, with `attach --follow`: the next life of the same process, without a rollback;
 * its peer, a process of this machine, has seen both lives.
 */
import { expect, test } from "vitest";
import type { ProcessInfo } from "../../src/client/protocol.ts";
import type { RecoveryLine } from "../../src/model/recovery-line.ts";
import { Podman, told, withoutPodman } from "../daemon/podman.ts";
import { type Rig, until, withRig } from "../daemon/rig.ts";
import { restartable } from "./restartable.ts";

const reason = withoutPodman();
const MORE = 30;
const ADDRESS = "10.88.77.7";

/**
 * Counts in redis, prints "LIFE NUMBER"; a new connection is a new life, whose numbers begin at 1, as redis keeps nothing. It waits before it
 * connects again: what it said to a listener that dies before it accepts nobody has got, and such a line is refused at its restart.
 */
const COUNTER = `use IO::Socket::INET; $|=1;
for (my $life = 1;; $life++) { sleep(1) if $life > 1;
  my $s; until ($s = IO::Socket::INET->new(PeerAddr => $ARGV[0], Timeout => 1)) { select(undef,undef,undef,.05) }
  LIFE: for (my $n = 1;; $n++) { syswrite($s, "INCR k\\r\\n") or last; my $b = "";
    while ($b !~ /\\n/) { sysread($s, my $x, 99) or last LIFE; $b .= $x }
    $b =~ /:$n\\r/ or die "got $b for $n"; print "$life $n\\n"; select(undef,undef,undef,.01) } }`;

interface Counted {
  readonly life: number;
  readonly number: number;
}

/** Throws where an answer is missing or doubled within a life. */
function counted(rig: Rig): Counted {
  let at: Counted = { life: 1, number: 0 };
  for (const line of rig.output("client").split("\n").filter(Boolean)) {
    const [life = 0, number = 0] = line.split(" ").map(Number);
    const next = life === at.life ? number === at.number + 1 : life > at.life && number === 1;
    if (!next) throw new Error(`the client printed "${line}" after "${at.life} ${at.number}"`);
    at = { life, number };
  }
  return at;
}

function more(rig: Rig, life: number, from: number): Promise<void> {
  return until(`the client counts past ${from} in life ${life}`, () => {
    const now = counted(rig);
    return now.life > life || (now.life === life && now.number > from + MORE);
  });
}

async function processOf(rig: Rig, name: string): Promise<ProcessInfo> {
  const client = await rig.client();
  const found = (await client.processes()).find(({ process }) => process === name);
  client.close();
  return found!;
}

(reason === undefined ? restartable : test.skip)(
  "removed and made anew: its predecessor's end is on record, its next life begins with a checkpoint, and the line and the restart are right",
  { timeout: 180_000 },
  () =>
    withRig("follow", async (rig) => {
      const podman = new Podman();
      const name = `rl-${rig.app}`;
      const serve = (): void => {
        const place = ["--detach", "--name", name, "--network", "podman", "--ip", ADDRESS];
        const redis = [podman.server, "--port", "6390", "--save", "", "--protected-mode", "no"];
        podman.podman("run", ...place, "redis-alone", ...redis);
      };
      serve();
      await rig.collect();
      await rig.run("client", "perl", "-e", COUNTER, `${ADDRESS}:6390`);
      await more(rig, 1, 0);
      const first = await told(rig, "attach", rig.app, "db", "--container", name, "--follow");
      expect(first).not.toContain("only cuts");
      await more(rig, 1, counted(rig).number);

      podman.podman("rm", "--force", "--time", "0", name);
      await until("the collector knows its end", async () => !(await processOf(rig, "db")).live);
      expect((await processOf(rig, "db")).end, "podman's own record, though it is removed").toEqual({
        code: 137,
      });
      expect(await told(rig, "status", rig.app)).toMatch(/db +failed \(code 137\)/);

      serve();
      await until("the next life is recorded", async () => {
        const { live, incarnation, newestCheckpoint } = await processOf(rig, "db");
        return live && incarnation === 2 && newestCheckpoint === 2;
      });
      await until("the client has connected again", () => counted(rig).life > 1);
      const { life, number } = counted(rig);
      await more(rig, life, number);
      const rows = (await rig.events()).filter(({ process }) => process === "db");
      const own = rows.flatMap((event): (string | number | undefined)[] =>
        event.type === "gap" ? [event.reason] : event.type === "checkpoint" ? [event.checkpoint] : [],
      );
      expect(own, "no rollback, and each life begins with what nobody saw and a checkpoint").toEqual([
        "attached",
        1,
        "attached",
        2,
      ]);
      expect(rows.some(({ type }) => type === "rollback")).toBe(false);

      for (const failed of ["db", "client"]) {
        const { outcome, line } = await rig.json<RecoveryLine>("compute", rig.app, "--failed", failed);
        expect(outcome).toBe("clean");
        expect(line.map(({ process, checkpoint }) => [process, checkpoint])).toEqual([
          ["client", 2],
          ["db", 2],
        ]);
      }
      podman.podman("kill", name);
      expect(await told(rig, "restart", rig.app, "--failed", "db")).toContain("2 processes restarted");
      const after = counted(rig);
      expect(after.life, "its connection of the second life came back").toBe(life);
      await more(rig, life, after.number);
      expect(counted(rig).life).toBe(life);

      await told(rig, "detach", rig.app, "db");
      podman.podman("rm", "--force", "--time", "0", name);
      serve();
      await more(rig, life + 1, 0);
      expect(await processOf(rig, "db"), "who is detached follows nothing").toMatchObject({ live: false });
    }),
);
