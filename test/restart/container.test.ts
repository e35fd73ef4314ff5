/**
 * Containers of podman go back along the line: a redis in one, its client in another, on podman's bridge. The client's own log tells whether
 * all came back exactly: it is the sequence of its counter's values, and goes back with it.
 *
 * RECOVERY_LINE_CONTAINER_ROUNDS: how often they are killed and restarted (1).
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { expect, test } from "vitest";
import { packageRoot } from "../../src/native/binding.ts";
import { isHeld, Podman, told, withoutPodman } from "../daemon/podman.ts";
import { until, withRig } from "../daemon/rig.ts";
import { LONG } from "../size.ts";
import { restartable } from "./restartable.ts";

const CLI = join(packageRoot(), "dist/cli/main.js");
const reason = withoutPodman();
const ROUNDS = Number(process.env["RECOVERY_LINE_CONTAINER_ROUNDS"] ?? 1);
const MORE = 40;

/** How far the client has counted; throws where a value is missing, doubled or no number. */
function counted(podman: Podman, client: string): number {
  const lines = podman.logs(client);
  lines.forEach((line, at) => {
    if (line !== String(at + 1)) throw new Error(`the client got ${line} as answer ${at + 1}`);
  });
  return lines.length;
}

(reason === undefined ? restartable : test.skip)(
  "redis in one container and its client in another: killed and restored, exact by the client's count; a checkpoint that is killed while it holds one lets it go on, and the next is taken",
  { timeout: 120_000 + ROUNDS * 60_000, ...LONG },
  () =>
    withRig("containers", async (rig) => {
      const podman = new Podman();
      const [db, client] = [`rl-db-${rig.app}`, `rl-client-${rig.app}`];
      const [host = "", port = ""] = (await podman.serve(db)).split(":");
      podman.start(client, podman.client, "-h", host, "-p", port, "-r", "-1", "-i", "0.01", "INCR", "k");
      const more = async (from: number): Promise<void> =>
        until("the client counts", () => counted(podman, client) > from + MORE);
      await more(0);
      const ids = [db, client].map((name) => podman.inspect(name, "{{.Id}} {{.NetworkSettings.IPAddress}}"));
      await rig.collect();
      await told(rig, "attach", rig.app, "db", "--container", db, "--no-checkpoint");
      const first = await told(rig, "attach", rig.app, "client", "--container", client);
      expect(first).not.toContain("only cuts");

      for (let round = 0; round < ROUNDS; round += 1) {
        const saved = counted(podman, client);
        await more(saved);
        const [victim, process] = round % 2 === 0 ? [db, "db"] : [client, "client"];
        if (round % 3 === 2) podman.podman("rm", "--force", "--time", "0", victim);
        else podman.podman("kill", victim);
        const went = await told(rig, "restart", rig.app, "--failed", process);
        expect(went).toContain("2 processes restarted");
        await more(saved);
        expect(
          [db, client].map((name) => podman.inspect(name, "{{.Id}} {{.NetworkSettings.IPAddress}}")),
        ).toEqual(ids);
        if (round < ROUNDS - 1) await told(rig, "checkpoint", rig.app, "--coordinated");
      }

      const killed = spawn(process.execPath, [CLI, "checkpoint", rig.app, "db"], {
        env: { ...process.env, RECOVERY_LINE_HOME: rig.home },
        stdio: "ignore",
      });
      const ended = once(killed, "exit");
      await until("it is held", () => isHeld(rig));
      killed.kill("SIGKILL");
      await ended;
      const from = counted(podman, client);
      await more(from);
      expect(podman.inspect(db, "{{.State.Status}}")).toBe("running");
      await told(rig, "checkpoint", rig.app, "--coordinated");
    }),
);

/** Adds 1 to a number in redis on one connection; ends where the answer is not the next one. */
const COUNTER = `use IO::Socket::INET; $|=1; my $s = IO::Socket::INET->new(PeerAddr => $ARGV[0]) or die;
for (my $n = 1;; $n++) { syswrite($s, "INCR k\\r\\n"); my $b = ""; while ($b !~ /\\n/) { sysread($s, my $x, 99) or die "closed"; $b .= $x }
$b =~ /:$n\\r/ or die "got $b for $n"; print "$n\\n"; select(undef,undef,undef,.01) }`;

(reason === undefined ? restartable : test.skip)(
  "redis in a container and its client on this machine, across the bridge: either killed, both restored, exact",
  { timeout: 120_000 + ROUNDS * 60_000 },
  () =>
    withRig("mixed", async (rig) => {
      const podman = new Podman();
      const db = `rl-${rig.app}`;
      const address = await podman.serve(db);
      await rig.collect();
      await rig.run("client", "perl", "-e", COUNTER, address);
      const count = (): number => {
        const lines = rig.output("client").split("\n").filter(Boolean);
        lines.forEach((line, at) => {
          if (line !== String(at + 1)) throw new Error(`the client printed ${line} as line ${at + 1}`);
        });
        return lines.length;
      };
      const more = (from: number): Promise<void> => until("the client counts", () => count() > from + MORE);
      await more(0);
      expect(await told(rig, "attach", rig.app, "db", "--container", db)).not.toContain("only cuts");
      for (let round = 0; round < 2 * ROUNDS; round += 1) {
        const saved = count();
        await more(saved);
        // The bridge stands without anything that is plugged into it until the container is back.
        if (round % 2 === 0) podman.podman("kill", db);
        else rig.cgroup("client").kill();
        const went = await told(rig, "restart", rig.app, "--failed", round % 2 === 0 ? "db" : "client");
        expect(went).toContain("2 processes restarted");
        await more(saved);
        if (round < 2 * ROUNDS - 1) await told(rig, "checkpoint", rig.app, "--coordinated");
      }
    }),
);
