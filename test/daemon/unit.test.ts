/**
 * A unit of systemd, which runs already: systemd is the first process of a container here, with this machine's cgroups and network, and its
 * own systemctl is what our commands ask.
 */
import { chmodSync, existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { cgroup2Root } from "../../src/host/cgroups.ts";
import { restartable } from "../restart/restartable.ts";
import { PodmanStore, podmanAbsent } from "./podman-store.ts";
import { freePort, type Rig, until, withRig } from "./rig.ts";
import { removeCgroups, stranger } from "./strangers.ts";

const SYSTEMD = "/usr/lib/systemd/systemd";
const reason =
  podmanAbsent("redis-server", "redis-cli") ??
  (existsSync(SYSTEMD) ? undefined : "RL_NOT_SUPPORTED: systemd is not installed");

/** Adds 1 to a number in redis on one connection, and ends where the answer is not the next one. */
const COUNTER = `use IO::Socket::INET; $|=1; my $s = IO::Socket::INET->new(PeerAddr => $ARGV[0]) or die;
for (my $n = 1;; $n++) { syswrite($s, "INCR k\\r\\n"); my $b = ""; while ($b !~ /\\n/) { sysread($s, my $x, 99) or die "closed"; $b .= $x }
$b =~ /:$n\\r/ or die "got $b for $n"; print "$n\\n"; select(undef,undef,undef,.01) }`;

/** A systemd that starts nothing by itself, with one unit. */
class Systemd extends PodmanStore {
  readonly #name: string;

  constructor(rig: Rig, command: string) {
    super();
    this.#name = `rl-${rig.app}`;
    this.makeImage("with-systemd", {
      "etc/os-release": "ID=none\n",
      "etc/machine-id": "",
      "etc/passwd": "root:x:0:0:root:/root:/bin/sh\n",
      "etc/systemd/system/small.target": "[Unit]\nDefaultDependencies=no\n",
      "etc/systemd/system/db.service": `[Unit]\nDefaultDependencies=no\n[Service]\nType=notify\nExecStart=${command}\n`,
    });
    const mounts = ["--volume", "/usr:/usr:ro", "--tmpfs", "/run", "--tmpfs", "/tmp"];
    const host = ["--privileged", "--systemd=always", "--network=host", "--cgroupns=host", ...mounts];
    this.podman(
      "run",
      "--detach",
      "--name",
      this.#name,
      ...host,
      "with-systemd",
      SYSTEMD,
      "--unit=small.target",
    );
    this.useFor(process.env);
    this.#onPath(rig);
  }

  /** Our commands find its systemctl. */
  #onPath(rig: Rig): void {
    const bin = rig.path("bin");
    mkdirSync(bin);
    writeFileSync(join(bin, "systemctl"), `#!/bin/sh\nexec podman exec ${this.#name} systemctl "$@"\n`);
    chmodSync(join(bin, "systemctl"), 0o755);
    const before = process.env["PATH"]!;
    process.env["PATH"] = `${bin}:${before}`;
    onTestFinished(() => {
      process.env["PATH"] = before;
    });
  }

  systemctl(...args: string[]): string {
    return this.podman("exec", this.#name, "systemctl", ...args);
  }

  get runs(): boolean {
    try {
      return ["running", "degraded"].includes(this.systemctl("is-system-running"));
    } catch {
      return false;
    }
  }
}

test.skipIf(reason !== undefined)(
  `a unit is recorded where it runs, systemd goes on to know it, and its end is the end of its recording${reason === undefined ? "" : ` (${reason})`}`,
  { timeout: 120_000 },
  ({ skip }) =>
    withRig("unit", async (rig) => {
      const port = await freePort();
      const systemd = new Systemd(rig, `/usr/bin/redis-server --port ${port} --save "" --supervised systemd`);
      const began = await until("systemd runs", () => systemd.runs, 20_000).catch(() => "not");
      if (began === "not") skip("RL_NOT_SUPPORTED: systemd does not start in a container here");
      systemd.systemctl("start", "db.service");
      const main = (): string => systemd.systemctl("show", "--property", "MainPID,ActiveState", "db.service");
      const before = main();
      expect(before).toMatch(/MainPID=[1-9]\d*\nActiveState=active/);
      await rig.collect();
      await rig.run("client", "perl", "-e", COUNTER, `127.0.0.1:${port}`);
      const more = async (): Promise<void> => {
        const from = rig.output("client").length;
        await until("the client counts on", () => rig.output("client").length > from + 20);
      };
      await more();

      const attached = await rig.cli("attach", rig.app, "db", "--unit", "db.service");
      expect(attached, attached.err).toMatchObject({ code: 0 });
      expect(attached.err).toContain("only cuts are recorded: db can't be brought back from here");
      await more();
      const channels = (name: string, type: string): Promise<Set<string>> =>
        rig
          .events()
          .then(
            (events) =>
              new Set(
                events.flatMap((one) =>
                  one.process === name && one.type === type && "channel" in one ? [one.channel] : [],
                ),
              ),
          );
      const [sent, received] = [await channels("client", "send"), await channels("db", "receive")];
      expect([...sent].filter((channel) => received.has(channel) && !channel.includes("/"))).toHaveLength(1);
      const line = await rig.cli("compute", rig.app, "--failed", "db");
      expect(line.code, "its checkpoint is a cut alone, and it has no initial state").toBe(4);
      expect(line.err).toMatch(/db would have to go back to a moment before it was recorded/);
      expect(main(), "nothing of it was touched").toBe(before);

      systemd.systemctl("stop", "db.service");
      await until("the collector knows its end", async () => {
        const client = await rig.client();
        const db = (await client.processes()).find(({ process }) => process === "db");
        client.close();
        return db?.live === false;
      });
      expect(await rig.cli("attach", rig.app, "other", "--unit", "db.service")).toMatchObject({ code: 2 });
    }),
);

restartable(
  "a unit is recorded with an image by hand, and its restart is refused before anything is touched",
  () =>
    withRig("unit-image", async (rig) => {
      const slice = join(cgroup2Root(), `rl-${rig.app}.slice`);
      const unit = join(slice, "small.service"); // as systemd names them
      mkdirSync(unit, { recursive: true });
      onTestFinished(() => removeCgroups(slice, unit));
      const { pid } = stranger("sleep", ["1000"]);
      writeFileSync(join(unit, "cgroup.procs"), String(pid));
      await rig.collect();
      const attached = await rig.cli("attach", rig.app, "small", "--cgroup", unit);
      expect(attached, attached.err).toMatchObject({ code: 0 });
      const refused = await rig.cli("restart", rig.app, "--failed", "small");
      expect(refused).toMatchObject({ code: 4 });
      expect(refused.err).toMatch(
        /small: it is the unit small\.service of systemd.*Nothing was killed or restored/s,
      );
      expect(rig.cgroup("small").pids()).toEqual([pid]);
      expect(await rig.cli("detach", rig.app, "small")).toMatchObject({ code: 0 });
    }),
);
