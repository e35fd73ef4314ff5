/** Output commit (`run --hold-output`): a client that nobody records never gets a byte that any failure could undo. */
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";
import { readPolicyLog } from "../../src/daemon/policy-log.ts";
import { seeded } from "../../src/demo/seeded.ts";
import { restartable } from "../restart/restartable.ts";
import { sized } from "../size.ts";
import { freePort, type Rig, until, withRig } from "./rig.ts";

const LONG_MS = 20_000;
const KILLS = Number(process.env["RL_POLICY_KILLS"] ?? sized(3, 1));

/** Small programs: what is measured is the hold, not the size of an image. */
const USES =
  "use Socket; $SIG{PIPE}='IGNORE'; sub at{pack_sockaddr_in($_[0],inet_aton('127.0.0.1'))} sub tcp{socket(my $s,PF_INET,SOCK_STREAM,0)or die;$s}";
const LISTENS = `${USES} my $l=tcp();setsockopt($l,SOL_SOCKET,SO_REUSEADDR,1);bind($l,at($ARGV[0])) or die;listen($l,9);`;
/** The same over IPv6, and it has a unix connection to somebody. */
const COUNTER_6 = `use Socket; $SIG{PIPE}='IGNORE';socket(my $u,PF_UNIX,SOCK_STREAM,0);connect($u,pack_sockaddr_un($ARGV[1])) or die;syswrite($u,"x");socket(my $l,PF_INET6,SOCK_STREAM,0);bind($l,pack_sockaddr_in6($ARGV[0],("\\0"x15)."\\1")) or die;listen($l,9);my $n=0;for(;;){accept(my $c,$l) or next;while(sysread($c,my $q,1)){$n++;syswrite($c,"$n\\n")}}`;
/** Counts what it is asked. */
const COUNTER = `${LISTENS} my $n=0;for(;;){accept(my $c,$l) or next;while(sysread($c,my $q,1)){$n++;syswrite($c,"$n\\n")}}`;
/** Answers its client with what the counter says. */
const FRONT = `${LISTENS} my $d;for(;;){$d=tcp();last if connect($d,at($ARGV[1]));select(undef,undef,undef,0.02)}for(;;){accept(my $c,$l) or next;while(sysread($c,my $q,1)){my $a;for(1..($q eq '#'?300:1)){syswrite($d,"?");sysread($d,$a,99)}syswrite($c,$a) or last}}`;

async function run(
  rig: Rig,
  name: string,
  script: string,
  ports: readonly (number | string)[],
  ...flags: string[]
): Promise<void> {
  const words = ["perl", "-e", script, ...ports.map(String)];
  const { code, err } = await rig.cli("run", rig.app, name, "--detach", ...flags, "--", ...words);
  if (code !== 0) throw new Error(`run ${name}: ${err}`);
}

/** As soon as somebody listens. */
async function connected(port: number, host = "127.0.0.1"): Promise<Socket> {
  let found: Socket | undefined;
  await until("somebody listens", async () => {
    const socket = connect(port, host).on("error", () => undefined);
    const made = await once(socket, "connect").then(
      () => true,
      () => false,
    );
    if (made) found = socket;
    return made;
  });
  return found!;
}

/** A client: the test's own process, which nobody records. */
class Client {
  readonly #port: number;
  #socket: Socket | undefined;
  readonly answers: number[] = [];

  constructor(port: number) {
    this.#port = port;
  }

  /** One question and its answer; undefined: the connection was reset, or nothing came in time. */
  async ask(limitMs: number, question = "?"): Promise<number | undefined> {
    this.#socket ??= await connected(this.#port);
    const socket = this.#socket;
    const answer = new Promise<string | undefined>((resolve) => {
      socket.once("data", (text: Buffer) => resolve(text.toString()));
      socket.once("close", () => resolve(undefined));
    });
    socket.write(question);
    const text = await Promise.race([answer, sleep(limitMs, undefined)]);
    if (text === undefined) this.leave();
    else this.answers.push(Number(text));
    return text === undefined ? undefined : Number(text);
  }

  leave(): void {
    this.#socket?.destroy();
    this.#socket = undefined;
  }
}

restartable(
  "every byte that a client got is in the state after a kill -9 at any moment, whoever is killed",
  () =>
    withRig("hold", async (rig) => {
      const random = seeded(20_261_129);
      await rig.collect();
      const [port, inner] = [await freePort(), await freePort()];
      await run(rig, "counter", COUNTER, [inner]);
      await run(rig, "front", FRONT, [port, inner], "--hold-output", "--hold-limit", "20s");
      const client = new Client(port);
      expect(await client.ask(LONG_MS, "#")).toBe(300); // what it asks the counter does not wait
      for (const killed of sized([["front"], ["front", "counter"]], [["front", "counter"]])) {
        expect(await client.ask(LONG_MS)).toBeDefined();
        const answer = client.ask(5_000); // the kill comes somewhere in it
        await sleep(random(400));
        for (const name of killed) rig.cgroup(name).kill();
        await answer;
        client.leave();
        const last = Math.max(...client.answers);
        await until("they are dead", () => killed.every((name) => !rig.cgroup(name).populated));
        const { code, err } = await rig.cli("restart", rig.app);
        expect([code, err]).toEqual([0, expect.any(String)]);
        // What the client knows is in the state that came back: the next number is a later one.
        expect(await client.ask(LONG_MS), `${client.answers}`).toBeGreaterThan(last);
      }
      expect(new Set(client.answers).size).toBe(client.answers.length);
    }),
);

/** Hears of output, and lets it wait. */
const IDLE = `<policy xmlns="urn:recovery-line:policy:1" name="idle" version="1"><on event="output"><note text="it waits"/></on></policy>`;

restartable(
  "output goes by the policy output-commit alone, and a client never sees what a kill -9 at any moment undoes",
  () =>
    withRig("commits", async (rig) => {
      const seed = Number(process.env["RL_POLICY_SEED"] ?? 1);
      const random = seeded(seed);
      await rig.collect();
      const [port, inner] = [await freePort(), await freePort()];
      await run(rig, "counter", COUNTER, [inner]);
      const early = await rig.cli("policy", "plug", rig.app, "output-commit");
      expect([early.code, early.err]).toEqual([4, expect.stringContaining("nothing holds that of counter")]);
      rig.cgroup("counter").kill();
      await until("it has ended", () => !rig.cgroup("counter").populated);
      const hold = ["--hold-output", "--hold-limit", "20s"];
      await run(rig, "counter", COUNTER, [inner], "--fresh", ...hold);
      await run(rig, "front", FRONT, [port, inner], ...hold);
      writeFileSync(rig.path("idle.xml"), IDLE);
      await rig.json("policy", "plug", rig.app, rig.path("idle.xml"));
      const late = await rig.cli("run", rig.app, "other", "--detach", "--", "true");
      expect([late.code, late.err]).toEqual([4, expect.stringContaining("idle decides when output may go")]);
      const client = new Client(port);
      expect(await client.ask(1_000), "the collector takes no checkpoint of its own").toBeUndefined();
      await rig.json("policy", "plug", rig.app, "output-commit", "--fallback", "none");

      for (let kill = 0; kill < KILLS; kill += 1) {
        expect(await client.ask(LONG_MS)).toBeDefined();
        const answer = client.ask(5_000); // the kill comes somewhere in it
        await sleep(random(1_500));
        const killed = [["front"], ["counter"], ["front", "counter"]][random(3)]!;
        for (const name of killed) rig.cgroup(name).kill();
        await answer;
        client.leave();
        await until("they are dead", () => killed.every((name) => !rig.cgroup(name).populated));
        await until("it is brought back", async () => {
          const { code, err } = await rig.cli("restart", rig.app);
          if (code !== 0) expect(err).toMatch(/restored by (another process|process \d+)/); // the policy's checkpoint is under way still
          return code === 0;
        });
        const last = Math.max(...client.answers);
        expect(await client.ask(LONG_MS), `seed ${seed}: ${client.answers}`).toBeGreaterThan(last);
      }
      expect(new Set(client.answers).size).toBe(client.answers.length);
      const log = readPolicyLog(join(rig.home, rig.app));
      const taken = log.filter(
        ({ event, outcome, action }) => `${event} ${action} ${outcome}` === "output synchronize done",
      );
      expect(taken.length).toBeGreaterThanOrEqual(KILLS);
      const { plugged } = await rig.json<{ plugged: { state: string }[] }>("policy", "list", rig.app);
      expect(plugged).toMatchObject([{ policy: "output-commit", state: "active" }]);
    }),
);

restartable(
  "output that nothing covers stays and is told, also while no collector lives; the next one lets it go",
  () =>
    withRig("held", async (rig) => {
      const first = await rig.collect();
      let said = "";
      first.child.stderr!.on("data", (text: Buffer) => {
        said += text.toString();
      });
      const port = await freePort();
      const held: Socket[] = []; // no image holds a unix connection to somebody outside
      const outside = createServer((socket) => held.push(socket)).listen(rig.path("outside"));
      try {
        await run(rig, "web", COUNTER_6, [port, rig.path("outside")], "--hold-output", "--hold-limit", "1s");
        const socket = await connected(port, "::1");
        let got = "";
        socket.on("data", (text: Buffer) => {
          got += text.toString();
        });
        socket.write("?");
        await until("it waits too long", async () => {
          const { hold, peers } = (await rig.known("web"))!;
          return (hold?.waits?.sinceMs ?? 0) > 1_000 && peers !== undefined;
        });
        const { out } = await rig.cli("status", rig.app);
        expect(out).toMatch(/output of web waits: 2 bytes on 1 connection, .*longer than its limit/);
        expect(out).toContain(
          "web has sent by AF_UNIX, to a program that is not recorded: --hold-output does not",
        );
        const told = /output of web of held-\d+ has waited .* and stays: 2 bytes on 1 connections; .+/;
        await until("it is told", () => told.test(said));
        first.child.kill("SIGKILL");
        await first.ended;

        for (const one of held) one.destroy();
        await sleep(1_000); // several tries of TCP
        expect(got).toBe("");
        await rig.collect();
        await until("the answer goes", () => got !== "");
        expect(got).toBe("1\n");
        socket.destroy();
      } finally {
        outside.close();
        for (const one of held) one.destroy();
      }
    }),
);

/** Speaks by all ways that nothing holds: a datagram, a file, a TCP socket that it takes from somebody; and over one of its own, which waits. */
const AROUND = `${USES} my($to,$udp,$pid,$fd,$file)=@ARGV;open(my $f,'>>',$file) or die;my $p=syscall(434,$pid+0,0);my $n=syscall(438,$p,$fd+0,0);die "$!" if $n<0;open(my $s,'>&=',$n) or die;socket(my $u,PF_INET,SOCK_DGRAM,0);my $c=tcp();connect($c,at($to)) or die;for(;;){syswrite($c,"held");syswrite($f,"x");syswrite($s,"x");send($u,"x",0,at($udp));select(undef,undef,undef,0.2)}`;

restartable("datagrams, files and sockets of another cgroup go out all the same, and are said by name", () =>
  withRig("around", async (rig) => {
    await rig.collect();
    const came: string[] = [];
    const outside = createServer((socket) => {
      socket.on("data", (text: Buffer) => came.push(text.toString())).on("error", () => undefined);
    }).listen(0, "127.0.0.1");
    try {
      await once(outside, "listening");
      const { port } = outside.address() as AddressInfo;
      const passed = await connected(port);
      const { fd } = (passed as unknown as { _handle: { fd: number } })._handle;
      const file = rig.path("said.log");
      const words = [port, await freePort(), process.pid, fd, file];
      await run(rig, "web", AROUND, words, "--hold-output", "--hold-limit", "20s");
      const ways = [
        "datagrams (UDP and all that is not TCP)",
        `a socket that was made in another cgroup, to 127.0.0.1:${port}`,
        `the file ${file}`,
      ].map((way) => `web has sent by ${way}: --hold-output does not`);
      await until(
        "each is known",
        async () => ((await rig.known("web"))!.peers ?? []).length === ways.length,
      );
      const { out } = await rig.cli("status", rig.app);
      for (const way of ways) expect(out).toContain(way);
      expect(came.join(""), "only what it took from another cgroup has come").toMatch(/^(x|(held)+)+$/);
      passed.destroy();
    } finally {
      outside.close();
    }
  }),
);

test("what goes out otherwise is refused before anything is begun", () =>
  withRig("unheld", async (rig) => {
    const hold = (...flags: string[]) =>
      rig.cli("run", rig.app, "web", "--hold-output", ...flags, "--", "true");
    const [attached, output, limit] = await Promise.all([
      hold(),
      hold("--detach", "--output", rig.path("web.log")),
      rig.cli("run", rig.app, "web", "--detach", "--hold-limit", "1s", "--", "true"),
    ]);
    expect([attached.code, output.code, limit.code]).toEqual([4, 4, 2]);
    expect(attached.err).toContain("standard output");
    expect(output.err).toContain(`--output ${rig.path("web.log")} lies in no folder of --data`);
    expect(limit.err).toContain("--hold-limit needs --hold-output");
  }));
