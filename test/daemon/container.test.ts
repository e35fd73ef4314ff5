/** A container of podman that runs already, on podman's bridge, as a process of an application. */
import { execFileSync, spawnSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { cgroup2Root } from "../../src/host/cgroups.ts";
import { missing, type Rig, until, withRig } from "./rig.ts";

const PORT = "6390";

/** Adds 1 to a number in the container's redis on one connection, and ends where the answer is not the next one. */
const COUNTER = `use IO::Socket::INET; $|=1; my $s = IO::Socket::INET->new(PeerAddr => $ARGV[0]) or die;
for (my $n = 1;; $n++) { syswrite($s, "INCR k\\r\\n"); my $b = ""; while ($b !~ /\\n/) { sysread($s, my $x, 99) or die "closed"; $b .= $x }
$b =~ /:$n\\r/ or die "got $b for $n"; print "$n\\n"; select(undef,undef,undef,.01) }`;

function absent(): string | undefined {
  if (missing !== undefined) return missing.reason;
  for (const [program, ...args] of [
    ["podman", "--version"],
    ["runc", "--version"],
    ["redis-server", "--version"],
  ] as const)
    try {
      execFileSync(program, args, { stdio: "ignore" });
    } catch {
      return `RL_NOT_SUPPORTED: ${program} is not installed`;
    }
  return undefined;
}

const reason = absent();

/** podman with a store of its own: an image of redis and its libraries, without a registry. */
class Podman {
  readonly folder = mkdtempSync(join(tmpdir(), "rl-podman-"));

  constructor() {
    const leftByPodman = [
      [existsSync("/sys/class/net/cni-podman0"), "ip link delete cni-podman0"],
      [existsSync(join(cgroup2Root(), "libpod_parent")), `rmdir ${join(cgroup2Root(), "libpod_parent")}`],
    ] as const;
    const [storage, engine] = [join(this.folder, "storage.conf"), join(this.folder, "containers.conf")];
    writeFileSync(
      storage,
      `[storage]\ndriver = "vfs"\ngraphroot = "${this.folder}/store"\nrunroot = "${this.folder}/run"\n`,
    );
    writeFileSync(
      engine,
      `[engine]\ncgroup_manager = "cgroupfs"\nruntime = "runc"\nevents_logger = "file"\n[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1000:1000"]\n`,
    );
    process.env["CONTAINERS_STORAGE_CONF"] = storage;
    process.env["CONTAINERS_CONF"] = engine;
    onTestFinished(() => {
      this.podman("rm", "--all", "--force", "--time", "0");
      delete process.env["CONTAINERS_STORAGE_CONF"];
      delete process.env["CONTAINERS_CONF"];
      rmSync(this.folder, { recursive: true, force: true });
      for (const [wasThere, command] of leftByPodman) if (!wasThere) spawnSync("sh", ["-c", command]);
    });
    this.#makeImage();
  }

  podman(...args: string[]): string {
    return execFileSync("podman", args, { stdio: ["ignore", "pipe", "pipe"], timeout: 60_000 })
      .toString()
      .trim();
  }

  #makeImage(): void {
    const root = join(this.folder, "root");
    const program = execFileSync("sh", ["-c", "command -v redis-server"]).toString().trim();
    const libraries = execFileSync("ldd", [program])
      .toString()
      .match(/\/[^ ]+/g)!;
    for (const file of [program, ...libraries]) {
      mkdirSync(join(root, dirname(file)), { recursive: true });
      cpSync(file, join(root, file), { dereference: true });
    }
    mkdirSync(join(root, "tmp"), { recursive: true });
    const tree = join(this.folder, "tree.tar");
    execFileSync("tar", ["-C", root, "-cf", tree, "."]);
    this.podman("import", tree, "redis-alone");
    this.redis = program;
  }

  redis = "";

  /** Returns "address:port" of a redis in a container of that name. */
  async serve(name: string): Promise<string> {
    const options = ["--port", PORT, "--save", "", "--protected-mode", "no"];
    this.podman(
      "run",
      "--detach",
      "--name",
      name,
      "--network",
      "podman",
      "redis-alone",
      this.redis,
      ...options,
    );
    await until("redis listens", () => this.podman("logs", name).includes("Ready to accept"));
    const address = this.podman("container", "inspect", "--format", "{{.NetworkSettings.IPAddress}}", name);
    return `${address}:${PORT}`;
  }
}

async function told(rig: Rig, ...args: string[]): Promise<{ code: number | null; err: string }> {
  const { code, err } = await rig.cli(...args);
  return { code, err };
}

test.skipIf(reason !== undefined)(
  "recorded across the bridge, both ends under one name; its cuts make its end certain, its images are the runtime's",
  { timeout: 90_000 },
  () =>
    withRig("container", async (rig) => {
      const podman = new Podman();
      const address = await podman.serve(`rl-${rig.app}`);
      await rig.collect();
      await rig.run("client", "perl", "-e", COUNTER, address);
      await until("the client counts", () => rig.output("client").includes("20\n"));
      expect(podman.podman("ps", "--format", "{{.Names}}")).toBe(`rl-${rig.app}`);

      const attached = await told(rig, "attach", rig.app, "db", "--container", `rl-${rig.app}`);
      expect(attached, attached.err).toMatchObject({ code: 0 });
      expect(attached.err).toContain("only cuts are recorded: db can't be brought back from here");
      const refused = await told(rig, "checkpoint", rig.app, "db");
      expect(refused.code).not.toBe(0);
      expect(refused.err).toContain("runs in a container");

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
      const impossible = await told(rig, "compute", rig.app, "--failed", "client");
      expect(impossible.code, "the answers that the client got undo what the container did").toBe(4);
      expect(impossible.err).toMatch(
        /db \(because of client\) would have to go back to a moment before it was recorded/,
      );

      expect((await told(rig, "detach", rig.app, "db")).code).toBe(0);
      expect(podman.podman("ps", "--format", "{{.Names}}")).toBe(`rl-${rig.app}`);
      const before = rig.output("client").length;
      await until("the client counts on", () => rig.output("client").length > before + 20);
      expect(rig.output("client")).not.toContain("got");
    }),
);
