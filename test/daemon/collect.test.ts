import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { chmodSync, existsSync, mkdirSync, readdirSync, statSync, writeFileSync } from "node:fs";
import { createServer, request } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { expect, test } from "vitest";
import { KernelSource } from "../../src/capture/kernel-source.ts";
import { connectCollector } from "../../src/client/client.ts";
import { MAX_BODY_BYTES } from "../../src/model/limits.ts";
import { tile } from "../native/tiling.ts";
import { sized } from "../size.ts";
import { ECHO, freePort, missing, until, withRig, withSharedCollector } from "./rig.ts";

const together = withSharedCollector("collect");
const live = test.skipIf(missing !== undefined);
const NOBODY = 65534;
/** A process that talks to itself over TCP and stays. */
const LOOPBACK_TALK =
  'const net=require("node:net");const s=net.createServer(c=>c.resume()).listen(0,"127.0.0.1",()=>net.connect(s.address().port,"127.0.0.1").write("hello"))';

/** Asks as fast as it is answered, on one connection; says a byte of every thousandth answer. */
const BUSY_ASK =
  'const c=require("net").connect(+process.argv[1],"127.0.0.1");let n=0;c.on("data",()=>{c.write("q");if(++n%1000===0)process.stdout.write(".")});for(let i=0;i<64;i++)c.write("q")';
/** Their records fill a ring of 1 MiB. */
const OVERFLOWS = 40;

/** One request past our own client. */
function raw(
  socketPath: string,
  method: string,
  path: string,
  body = "",
): Promise<{ status: number; text: string }> {
  return new Promise((resolve, reject) => {
    const sent = request({ socketPath, method, path }, (response) => {
      let text = "";
      response.on("data", (bytes: Buffer) => {
        text += bytes.toString();
      });
      response.on("end", () => resolve({ status: response.statusCode!, text }));
    });
    sent.on("error", reject);
    sent.end(body);
  });
}

/** Families of ours against the naming rules of Prometheus: a counter ends in _total, nothing else does; base units; each has its help. */
function misnamed(text: string): string[] {
  const families = [...text.matchAll(/^# TYPE (recovery_line_\S+) (\S+)$/gm)].map(([, name, type]) => [
    name!,
    type!,
  ]);
  expect(families.length).toBeGreaterThan(15);
  return families.flatMap(([name, type]) => {
    const total = /_total$/.test(name!) === (type === "counter");
    const units = !/(milli|micro|nano)seconds|_m[si]|kib|mib/i.test(name!.replaceAll(/_missed|_misses/g, ""));
    return total && units && text.includes(`# HELP ${name} `) ? [] : [`${name} ${type}`];
  });
}

live("collect: ready line, private socket, metrics, clean end on SIGTERM", () =>
  withRig("collect", async (rig) => {
    const collector = await rig.collect("--metrics-port", "0", "--ring-mib", "1");
    expect(collector.ready).toMatch(
      /^recovery-line: collecting into .* \(process \d+, ring 1 MiB, metrics http:\S+\)\n$/,
    );
    const socket = join(rig.home, "collector.sock");
    expect(statSync(socket).mode & 0o777).toBe(0o600);
    expect(statSync(rig.home).mode & 0o777).toBe(0o700);
    const client = await rig.client();
    expect(await client.ping()).toMatchObject({ pid: collector.child.pid, home: rig.home, cgroupLevel: 3 });
    const url = /http:\S+metrics/.exec(collector.ready)![0];
    for (const text of [await (await fetch(url)).text(), await client.metrics()]) {
      expect(text).toContain('recovery_line_events_total{kind="send"} 0');
      expect(text).toContain("# TYPE recovery_line_lost_total counter");
      expect(text).toContain("recovery_line_ring_size_bytes 1048576");
      expect(text).toMatch(/process_resident_memory_bytes \d+/);
    }
    expect(misnamed(await client.metrics())).toEqual([]);
    expect((await fetch(url.replace("metrics", "v1/ping"))).status).toBe(404);
    client.close();
    collector.child.kill("SIGTERM");
    expect(await collector.ended).toMatchObject({ code: 0, err: "" });
    expect(existsSync(socket)).toBe(false);
    expect(await connectCollector(rig.home)).toBeUndefined();
  }),
);

live("a second collector of the same home is refused by name and pid, also with another pin directory", () =>
  together("second", async (rig) => {
    const { pid } = await (await rig.client()).ping();
    for (const pinDir of [rig.pinDir, `${rig.pinDir}-other`]) {
      const second = await rig.cli("collect", "--pin-dir", pinDir);
      expect(second.code).toBe(1);
      expect(second.err).toContain(`recovery-line collect, process ${pid}`);
      expect(existsSync(`${rig.pinDir}-other`)).toBe(false);
    }
    const otherHome = await rig.cli("collect", "--log", rig.path("other-home"), "--pin-dir", rig.pinDir);
    expect(otherHome.code).toBe(1);
    expect(otherHome.err).toContain(String(pid));
    await expect((await rig.client()).ping()).resolves.toMatchObject({ pid });
  }),
);

live(
  "a second collector with another home and pin directory says who records here already, and works beside it",
  () =>
    together("beside", async (rig) => {
      const { pid } = await (await rig.client()).ping();
      const pinDir = `${rig.pinDir}-other`;
      try {
        mkdirSync(rig.path("other"), { mode: 0o700 });
        const second = rig.background("collect", "--log", rig.path("other"), "--pin-dir", pinDir);
        await until("it is ready", async () => (await connectCollector(rig.path("other"))) !== undefined);
        second.child.kill("SIGTERM");
        const { code, err } = await second.ended;
        expect(code).toBe(0);
        expect(err).toContain(`process ${pid} records on this machine already, through ${rig.pinDir}:`);
      } finally {
        KernelSource.unpin(pinDir);
      }
      await expect((await rig.client()).ping()).resolves.toMatchObject({ pid });
    }),
);

live("pins of another version are refused with what to do, and stay as they are until that is done", () =>
  withRig("old-pins", async (rig) => {
    const first = await rig.collect();
    first.child.kill("SIGTERM");
    await first.ended;
    const config = `${rig.pinDir}/config`;
    const dump = JSON.parse(execFileSync("bpftool", ["-j", "map", "dump", "pinned", config]).toString());
    const value: string[] = dump[0].value;
    value[8] = "0x01"; // struct capture_config: 8 bytes of magic, then the version of the maps
    const update = ["map", "update", "pinned", config, "key", "0", "0", "0", "0", "value", ...value];
    execFileSync("bpftool", update);
    const pinned = readdirSync(rig.pinDir);
    const { code, err } = await rig.cli("collect", "--pin-dir", rig.pinDir);
    expect([code, err]).toEqual([
      1,
      expect.stringMatching(/was pinned by another version \(maps 1, .*unpin/s),
    ]);
    expect(readdirSync(rig.pinDir)).toEqual(pinned);
    expect((await rig.cli("collect", "--pin-dir", rig.pinDir, "--unpin")).code).toBe(0);
    await rig.collect();
  }),
);

live(
  "a kernel that refuses one program in the middle of loading: it is named, rights are not blamed, nothing stays pinned",
  () =>
    withRig("refused", async (rig) => {
      for (const program of sized(["tcp_state", "cut_files", "push_ends"], ["cut_files"])) {
        const args = ["collect", "--pin-dir", rig.pinDir, "--capture", `refuse=${program}`];
        const { code, err } = await rig.cli(...args);
        expect([code, err]).toEqual([1, expect.stringContaining(program)]);
        expect(err).not.toMatch(/CAP_|root/);
        expect([existsSync(rig.pinDir), existsSync(join(rig.home, "collector.sock"))]).toEqual([
          false,
          false,
        ]);
      }
    }),
);

live(
  "a collector that stands still for seconds while its ring overflows: every byte afterwards, no gap, a checkpoint with its cut",
  () =>
    withRig("stopped", async (rig) => {
      const { child } = await rig.collect("--ring-mib", "1");
      const port = await freePort();
      await rig.run("server", process.execPath, "-e", ECHO, String(port));
      await until("the server listens", () => rig.output("server").includes("listening"));
      await rig.run("client", process.execPath, "-e", BUSY_ASK, String(port));
      await until("they talk", async () => (await rig.events()).length > 100);
      child.kill("SIGSTOP");
      const before = rig.output("client").length;
      await until("more is said than the ring holds", () => rig.output("client").length > before + OVERFLOWS);
      child.kill("SIGCONT");
      const client = await rig.client();
      const { lost, gaps } = await client.stats();
      client.close();
      expect([lost.reduce((sum, one) => sum + one, 0) > 0, gaps]).toEqual([true, 0]);
      const checkpoint = await rig.json<{ checkpoints: unknown[] }>(
        "checkpoint",
        rig.app,
        "--driver",
        "none",
      );
      expect(JSON.stringify(checkpoint)).not.toContain('uncaptured":["');
      for (const name of ["client", "server"]) rig.cgroup(name).kill();
      const { covered, faults } = tile(await rig.events());
      expect(faults).toEqual([]);
      expect(covered.size).toBe(4);
    }),
);

live("--unpin does not pull the capture from under a collector that would go on without a word", () =>
  withRig("unpin", async (rig) => {
    const collector = await rig.collect();
    const refused = await rig.cli("collect", "--pin-dir", rig.pinDir, "--unpin");
    expect(refused).toMatchObject({
      code: 1,
      err: expect.stringContaining(`is being read by process ${collector.child.pid}`),
    });
    await rig.run("talker", process.execPath, "-e", LOOPBACK_TALK);
    await expect.poll(async () => (await rig.events()).length).toBeGreaterThan(0);
    collector.child.kill("SIGTERM");
    await collector.ended;
    expect(existsSync(rig.pinDir)).toBe(true);
    expect((await rig.cli("collect", "--pin-dir", rig.pinDir, "--unpin")).code).toBe(0);
    expect(existsSync(rig.pinDir)).toBe(false);
  }),
);

live("the socket of a killed collector stands for nothing and is replaced", () =>
  withRig("stale", async (rig) => {
    const first = await rig.collect();
    first.child.kill("SIGKILL");
    await first.ended;
    expect(existsSync(join(rig.home, "collector.sock"))).toBe(true);
    expect(await connectCollector(rig.home)).toBeUndefined();
    const without = JSON.parse((await rig.cli("status", "--json")).out);
    expect(without).toMatchObject({ collector: null, processes: null, cutOffRestarts: [] });
    const status = await rig.cli("status");
    expect([status.code, status.out]).toEqual([1, expect.stringContaining("no collector is running")]);
    const refused = await rig.cli("run", rig.app, "p", "--", "touch", rig.path("begun"));
    expect(refused.err).toContain("no collector is running");
    expect(existsSync(rig.path("begun"))).toBe(false);
    const second = await rig.collect();
    expect(await (await rig.client()).ping()).toMatchObject({ pid: second.child.pid });
    const withOne = JSON.parse((await rig.cli("status", "--json")).out);
    expect(Object.keys(withOne)).toEqual(Object.keys(without)); // the same fields, whoever looks
  }),
);

live("wrong use is told as such and starts nothing", () =>
  withRig("usage", async (rig) => {
    for (const args of [
      ["--ring-mib", "3"],
      ["--ring-mib", "0"],
      ["--nice", "5"],
      ["--metrics-port", "70000"],
      ["--commit-interval", "x"],
      ["--capture", "foo=bar"],
      ["--capture", "sockets=none"],
      ["--keep-in-transit", "any"],
      ["--pin-dir", rig.path("pins")],
    ]) {
      const { code, err } = await rig.cli("collect", "--pin-dir", rig.pinDir, ...args);
      expect([code, err]).toEqual([2, expect.stringContaining(args[0]!)]);
    }
    const taken = createServer().listen(0, "127.0.0.1");
    await once(taken, "listening");
    const { port } = taken.address() as AddressInfo;
    const busy = await rig.cli("collect", "--pin-dir", rig.pinDir, "--metrics-port", String(port));
    expect([busy.code, busy.err]).toEqual([2, expect.stringContaining(`metrics port ${port}`)]);
    taken.close();
    chmodSync(rig.home, 0o755);
    const open = await rig.cli("collect", "--pin-dir", rig.pinDir);
    expect([open.code, open.err]).toEqual([1, expect.stringContaining("chmod 700")]);
    expect(existsSync(rig.pinDir)).toBe(false);
  }),
);

live("a start of collect that fails leaves nothing of its own behind, and what was there", () =>
  withRig("leaves-nothing", async (rig) => {
    const start = (log: string, ...args: string[]) =>
      rig.cli("collect", "--log", log, "--pin-dir", rig.pinDir, ...args);
    const [fresh, old] = [rig.path("above/home"), rig.path("old")];
    const wrong = await start(fresh, "--capture", "foo=bar");
    expect([wrong.code, wrong.err]).toEqual([2, expect.stringMatching(/--capture foo=bar: .*no part "foo"/)]);
    const nowhere = await rig.cli("collect", "--log", fresh, "--pin-dir", rig.folder);
    expect([nowhere.code, nowhere.err]).toEqual([
      2,
      expect.stringContaining("is not on a BPF file system\nName a folder below /sys/fs/bpf"),
    ]);
    const refused = await start(fresh, "--capture", "refuse=tcp_state");
    expect([refused.code, refused.err]).toEqual([1, expect.stringContaining("tcp_state")]);
    expect([existsSync(rig.path("above")), existsSync(rig.pinDir)]).toEqual([false, false]);
    mkdirSync(old, { mode: 0o700 });
    writeFileSync(join(old, "collector.lock"), "an earlier one\n");
    expect(await start(old, "--capture", "refuse=tcp_state")).toMatchObject({ code: 1 });
    expect(readdirSync(old)).toEqual(["collector.lock"]);
  }),
);

live("--unpin where nothing is pinned says so", () =>
  withRig("unpin-nothing", async (rig) => {
    for (const place of [rig.pinDir, rig.path("never"), rig.folder]) {
      const { code, out } = await rig.cli("collect", "--unpin", "--pin-dir", place);
      expect([code, out]).toEqual([
        0,
        `recovery-line: there was nothing: no capture is pinned in ${place}\n`,
      ]);
    }
    expect(existsSync(rig.folder)).toBe(true);
  }),
);

live("requests beyond the protocol are answered with a code, and the collector goes on", () =>
  together("protocol", async (rig) => {
    const socket = join(rig.home, "collector.sock");
    const answers: [string, string, string, number, string][] = [
      ["GET", "/v1/nothing", "", 400, "RL_USAGE"],
      ["POST", "/v1/register", "{", 400, "RL_USAGE"],
      ["POST", "/v1/register", "[]", 400, "RL_USAGE"],
      ["POST", "/v1/register", '{"app":"a","process":"p","cgroupId":1.5}', 400, "RL_USAGE"],
      ["POST", "/v1/register", '{"app":"../a","process":"p","cgroupId":7}', 400, "RL_USAGE"],
      [
        "POST",
        "/v1/register",
        '{"app":"a","process":"p","cgroupId":7,"trust":["everybody"]}',
        400,
        "RL_USAGE",
      ],
      ["POST", "/v1/cut", '{"app":"a","process":"p"}', 404, "RL_UNKNOWN_PROCESS"],
      ["POST", "/v1/append", '{"app":"a","event":"{}"}', 400, "RL_BAD_INPUT"],
      [
        "POST",
        "/v1/append",
        JSON.stringify({ app: "a", event: '{"type":"send","process":"p","channel":"c","begin":0,"end":1}' }),
        400,
        "RL_USAGE",
      ],
      ["POST", "/v1/rotate", '{"app":"nowhere"}', 404, "RL_UNKNOWN_APP"],
      ["GET", "/v1/apps/nowhere/blocks", "", 404, "RL_UNKNOWN_APP"],
      ["GET", "/v1/apps/%2e%2e/blocks", "", 400, "RL_USAGE"],
      ["GET", "/v1/apps/nowhere/blocks?since=-1", "", 400, "RL_USAGE"],
      ["POST", "/v1/drain", " ".repeat(MAX_BODY_BYTES + 1), 429, "RL_LIMIT"],
    ];
    for (const [method, path, body, status, code] of answers) {
      const answer = await raw(socket, method, path, body).catch((error: NodeJS.ErrnoException) => error);
      if (answer instanceof Error) expect([path, answer.code]).toEqual(["/v1/drain", "EPIPE"]);
      else expect([path, answer.status, JSON.parse(answer.text).code]).toEqual([path, status, code]);
    }
    expect(await (await rig.client()).processes()).toEqual([]);
  }),
);

live("a stream of blocks without its end is an error, not a short log", () =>
  withRig("truncated", async (rig) => {
    const block = Buffer.concat([Buffer.from([3, 0, 0, 0]), Buffer.from("abc")]);
    const server = createServer((incoming, response) => {
      if (incoming.url === "/v1/ping") response.end("{}");
      else
        response.end(
          incoming.url!.includes("whole")
            ? Buffer.concat([block, block, Buffer.alloc(4)])
            : Buffer.concat([block, block.subarray(0, 5)]),
        );
    });
    await new Promise<void>((resolve) => server.listen(join(rig.home, "collector.sock"), resolve));
    try {
      const client = await rig.client();
      const read = async (app: string) => {
        const blocks: string[] = [];
        for await (const one of client.blocks(app)) blocks.push(Buffer.from(one).toString());
        return blocks;
      };
      expect(await read("whole")).toEqual(["abc", "abc"]);
      await expect(read("short")).rejects.toMatchObject({ code: "RL_NO_COLLECTOR" });
      client.close();
    } finally {
      server.closeAllConnections();
      server.close();
    }
  }),
);

/** The command as a user without any rights. */
function asNobody(home: string, ...args: string[]): { code: number; text: string } {
  const cli = join(import.meta.dirname, "../../dist/cli/main.js");
  try {
    const command = [
      `--reuid=${NOBODY}`,
      `--regid=${NOBODY}`,
      "--clear-groups",
      process.execPath,
      cli,
      ...args,
    ];
    const text = execFileSync("setpriv", command, {
      env: { ...process.env, RECOVERY_LINE_HOME: home },
      stdio: "pipe",
    });
    return { code: 0, text: text.toString() };
  } catch (error) {
    const { status, stdout, stderr } = error as { status: number; stdout: Buffer; stderr: Buffer };
    return { code: status, text: `${stdout}${stderr}` };
  }
}

const root = test.skipIf(missing !== undefined || process.getuid!() !== 0);

root("without rights: each command says which are missing", () =>
  withRig("rights", async (rig) => {
    await rig.collect();
    const own = rig.path("own");
    chmodSync(rig.folder, 0o711);
    mkdirSync(own, { mode: 0o700 });
    execFileSync("chown", [String(NOBODY), own]);
    const collect = asNobody(own, "collect", "--pin-dir", `${rig.pinDir}-nobody`);
    expect([collect.code, collect.text]).toEqual([
      1,
      expect.stringMatching(/CAP_BPF|as root|permitted|rights/i),
    ]);
    const status = asNobody(rig.home, "status");
    expect([status.code, status.text]).toEqual([
      1,
      expect.stringContaining("Only root and the collector's own user"),
    ]);
    const doctor = asNobody(own, "doctor");
    expect(doctor.code).toBe(1);
    expect(doctor.text).toMatch(/rights\s+NO/);
    expect(doctor.text).toContain("loopback self-test FAILED");
  }),
);
