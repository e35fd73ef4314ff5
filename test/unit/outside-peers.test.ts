/** Who is outside, by what the kernel tells of other ends and what the user says of addresses. */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { Collector } from "../../src/collect/collect.ts";
import { PeerRules } from "../../src/collect/peer-rules.ts";
import { RingFlag, RingKind } from "../../src/format/ring-layout.ts";
import type { Surroundings } from "../../src/host/surroundings.ts";
import type { NodeNames, Registration } from "../../src/model/collector-answers.ts";
import { FakeDisk, FakeRing, FakeSource } from "./collect-fakes.ts";

const { OPEN, SINK, SOURCE, UNIX, WRITE } = RingFlag;
const BEGAN = 12_345;
let home: string;
let ring: FakeRing;
let disk: FakeDisk;
let source: FakeSource;
let collector: Collector;
/** This host has 10.1.2.3, and translates nothing, unless a test says otherwise. */
let here: Surroundings;

const start = async (node?: NodeNames): Promise<void> => {
  source = new FakeSource(ring);
  collector = await Collector.over({
    source,
    home,
    openLog: disk.opener(() => true),
    commitIntervalMs: 5,
    surroundings: async () => here,
    ...(node && { node }),
  });
};
const register = (registration: Partial<Registration>) =>
  collector.registrations.register({ app: "a", process: "p", cgroupId: 1, ...registration });

beforeEach(async () => {
  home = mkdtempSync(join(tmpdir(), "outside-peers-"));
  [ring, disk] = [new FakeRing(), new FakeDisk()];
  here = { owns: (address) => address === "10.1.2.3" };
  await start();
});
afterEach(async () => {
  await collector.close().catch(() => undefined);
  rmSync(home, { recursive: true, force: true });
});

/** The other end of connection `local`-9 of a process: program `pid`, or, with 0, the recorded cgroup `began`, or, with 0 and 0, nobody. */
const peer = (process: number, local: number, pid: number, { flags = 0, began = BEGAN } = {}) =>
  ring.put({ process, kind: RingKind.PEER, flags, local, remote: 9, begin: began, length: pid });
/** 10.1.2.3, as the kernel tells it (recovery_ring.h). */
const address = (process: number, local: number, flags: number, port: number) =>
  ring.put({
    process,
    kind: RingKind.PEER,
    flags: flags | WRITE,
    local,
    remote: 9,
    begin: 0,
    time: 0xffff0000 * 2 ** 16,
    length: 0x0302010a,
    lostBefore: port,
  });
const told = (app = "a") =>
  disk
    .events(join(home, app))
    .map((event) => `${event.process} ${event.type} ${"channel" in event ? event.channel : ""}`.trim());
const peers = async () =>
  Object.fromEntries(collector.processes().map(({ process, peers: notes }) => [process, notes]));
const rows = (process: string, local: string) => [
  `${process} outside tcp:${local}-00000009`,
  `${process} outside tcp:00000009-${local}`,
  `${process} outside tcp:${local}-00000009/end`,
];

test("a program that is not recorded is outside, also for the opening that was sent to it", async () => {
  await register({});
  peer(1, 7, 100);
  peer(1, 8, 100, { flags: OPEN });
  await collector.drain();
  expect(told()).toEqual([
    ...rows("p", "00000007"),
    ...rows("p", "00000008"),
    "p outside tcp:00000008-00000009/open",
  ]);
});

test("who was found there is known for answers, both ways of a connection: programs, other applications, addresses", async () => {
  await register({});
  await register({ app: "b", process: "r", cgroupId: 3 });
  const own = Number(
    readFileSync("/proc/self/stat", "utf8")
      .replace(/^.*\) /s, "")
      .split(" ")[19],
  );
  address(1, 5, OPEN, 80);
  peer(1, 5, process.pid, { began: own * 1e7 });
  peer(1, 6, 100);
  peer(1, 7, 0, { began: 3 });
  await collector.drain();
  here = far;
  nobody(1, 8);
  await collector.drain();
  const names = new Map((await collector.facts.peerNames("a")).map(({ channel, name }) => [channel, name]));
  const program = readFileSync("/proc/self/comm", "utf8").trim();
  const expected = [`process ${process.pid} (${program}) at 10.1.2.3:80`, "process 100", "b/r", "10.1.2.3"];
  for (const [at, name] of expected.entries())
    for (const channel of [`tcp:0000000${at + 5}-00000009`, `tcp:00000009-0000000${at + 5}`])
      expect([channel, names.get(channel)]).toEqual([channel, name]);
  expect(await collector.facts.peerNames("b")).toEqual([]);
  await expect(collector.facts.peerNames("c")).rejects.toMatchObject({ code: "RL_UNKNOWN_APP" });
});

test("to whom a peer that is outside has given data is known, by option or by another application, on whatever connection", async () => {
  await register({ rules: { outside: ["10.0.0.0/8"], inside: [] } });
  await register({ process: "q", cgroupId: 2 });
  await register({ app: "b", process: "r", cgroupId: 3 });
  for (const [process, flags] of [
    [1, SINK],
    [2, SOURCE],
  ] as const) {
    address(process, 5, OPEN, 80);
    peer(process, 5, 100, { flags });
    peer(process, 6, 0, { began: 3, flags });
    peer(process, 6, 0, { began: 3, flags: flags | SINK }); // told again as data passes
  }
  await collector.drain();
  const gave = (await collector.facts.peerNames("a")).map(({ channel, gave }) => [channel, gave]);
  expect(gave).toHaveLength(4);
  for (const [, names] of gave) expect(names).toEqual(["q"]);
});

test("endings of connections with the outside wait for nobody, whether they come before it is known or after", async () => {
  await register({});
  const end = (local: number, kind: number, flags: number = RingFlag.END) =>
    ring.put({ process: 1, kind, flags, local, remote: 9, length: 1 });
  end(7, RingKind.RECEIVE, OPEN);
  end(7, RingKind.RECEIVE);
  end(7, RingKind.SEND);
  peer(1, 7, 100);
  peer(1, 8, 100);
  end(8, RingKind.RECEIVE);
  end(8, RingKind.SEND);
  await collector.drain();
  const sends = ["p send tcp:00000007-00000009/end", "p send tcp:00000008-00000009/end"];
  expect(told().filter((line) => !line.includes("outside"))).toEqual(sends);
  const { state, asked } = disk.logs.get(join(home, "a"))!;
  expect([state.get("held") ?? [], asked]).toEqual([[], []]);
});

test("who talks with two processes is a relay for both, across a restart of the collector; another of its number is none", async () => {
  await register({});
  await register({ process: "q", cgroupId: 2 });
  peer(1, 7, 100, { flags: SINK });
  peer(2, 7, 100, { began: BEGAN + 1, flags: SOURCE });
  await collector.drain();
  expect(told()).toHaveLength(6);
  await collector.close();
  await start();
  peer(2, 8, 100, { flags: SOURCE });
  await collector.drain();
  expect(told().slice(6).sort()).toEqual(["p gap", "q gap"]);
});

test("who only listens to both, or only asks one of them whether it is there, carries nothing, until data passes from the one and to the other", async () => {
  await register({});
  await register({ process: "q", cgroupId: 2 });
  await register({ process: "r", cgroupId: 3 });
  peer(1, 7, 100, { flags: SINK });
  peer(2, 8, 100);
  peer(2, 8, 100, { flags: SINK }); // q has said something to it, too
  peer(1, 7, 100, { flags: SINK | SOURCE }); // p is all that it talks to
  peer(3, 7, 100); // a probe
  await collector.drain();
  expect(told().filter((text) => text.endsWith("gap"))).toEqual(["p gap", "q gap"]); // what q said may reach p
  expect(told().filter((text) => text.startsWith("r"))).toEqual(rows("r", "00000007"));
});

test("data that passes later makes the relay", async () => {
  await register({});
  await register({ process: "q", cgroupId: 2 });
  peer(1, 7, 100, { flags: SINK | SOURCE });
  peer(2, 8, 100);
  await collector.drain();
  expect(told()).toHaveLength(6);
  peer(2, 8, 100, { flags: SOURCE });
  await collector.drain();
  expect(told().slice(6).sort()).toEqual(["p gap", "q gap"]);
});

test("another application is outside, and which one is told; a process of the same is not", async () => {
  await register({});
  await register({ process: "q", cgroupId: 2 });
  await register({ app: "b", process: "r", cgroupId: 3 });
  peer(1, 7, 0, { began: 2 });
  peer(1, 8, 0, { began: 3 });
  peer(1, 6, 0, { began: 4 }); // of nobody who is recorded now
  await collector.drain();
  expect(told()).toEqual(rows("p", "00000008"));
  expect((await peers())["p"]).toEqual([{ what: "foreign", peer: "b/r" }]);
});

test("where nobody was found the address is in doubt, and an option decides it; it also overrides a relay", async () => {
  await register({});
  await register({ process: "q", cgroupId: 2 });
  address(1, 7, OPEN, 5432);
  peer(1, 7, 0, { began: 0 });
  await collector.drain();
  expect(told()).toEqual([]);
  expect((await peers())["p"]).toEqual([{ what: "doubted", peer: "10.1.2.3:5432" }]);

  await register({
    process: "r",
    cgroupId: 3,
    rules: { outside: ["10.1.0.0/16:5432"], inside: ["10.0.0.0/8"] },
  });
  for (const process of [1, 2]) {
    address(process, 8, 0, 5432);
    peer(process, 8, process === 1 ? 0 : 100, { began: process === 1 ? 0 : BEGAN });
  }
  address(1, 6, 0, 5433);
  peer(1, 6, 100);
  await collector.drain();
  expect(told().sort()).toEqual([...rows("p", "00000008"), ...rows("q", "00000008")].sort());
  expect((await peers())["p"]?.at(-1)).toEqual({
    what: "contradicted",
    peer: "10.1.2.3",
    rule: "--inside 10.0.0.0/8",
    found: { is: "stranger", who: "process 100" },
  });
});

test("an option that contradicts who was found: both are told; a process of the application stays one, else the option counts", async () => {
  await register({ rules: { outside: ["10.1.2.3:5432", "10.0.0.0/8"], inside: ["10.1.2.3:5433"] } });
  await register({ process: "q", cgroupId: 2 });
  await register({ app: "b", process: "r", cgroupId: 3 });
  const found = (local: number, port: number, cgroup: number) => {
    address(1, local, OPEN, port);
    peer(1, local, 0, { began: cgroup, flags: OPEN });
  };
  found(6, 80, 2); // a range that is outside holds processes of the application, too
  found(7, 5432, 2);
  found(8, 5433, 3);
  await collector.drain();
  expect(told()).toEqual([]);
  expect((await peers())["p"]).toEqual([
    {
      ...{ what: "contradicted", peer: "10.1.2.3:5432", rule: "--outside 10.1.2.3:5432" },
      found: { is: "recorded", who: "q" },
    },
    {
      ...{ what: "contradicted", peer: "10.1.2.3:5433", rule: "--inside 10.1.2.3:5433" },
      found: { is: "foreign", who: "b/r" },
    },
  ]);
});

const far: Surroundings = { owns: () => false };
/** Nobody is found at the other end, 10.1.2.3. */
const nobody = (process: number, local: number, { flags = 0, port = 5432 } = {}) => {
  address(process, local, flags, port);
  peer(process, local, 0, { began: 0, flags });
};

test("an address of another machine is outside where the application has no node there; it waits across a restart of the collector", async () => {
  await register({});
  nobody(1, 7, { flags: OPEN });
  await collector.close(); // nobody has asked
  here = far;
  await start();
  await collector.drain();
  expect(told()).toEqual([...rows("p", "00000007"), "p outside tcp:00000007-00000009/open"]);
  expect((await peers())["p"]).toBeUndefined();
});

test("an address that this host translates may lead to a process here, as may one at which the log knows a process", async () => {
  here = { ...far, doubt: "/proc/1/ns/net translates addresses" };
  await register({});
  await register({ process: "q", cgroupId: 2 });
  nobody(1, 7, { flags: OPEN });
  await collector.drain();
  expect(told()).toEqual([]);
  expect((await peers())["p"]).toEqual([
    { what: "doubted", peer: "10.1.2.3:5432", rule: "/proc/1/ns/net translates addresses" },
  ]);
  here = far;
  ring.put({ process: 2, kind: RingKind.SEND, local: 9, remote: 8, begin: 0, length: 5 }); // the mirrored name
  nobody(1, 8);
  await collector.drain();
  expect(told()).toEqual(["q send tcp:00000009-00000008"]);
  expect((await peers())["p"]).toHaveLength(1);
});

test("who is found after all is no longer in doubt, and a rule that comes before the decision counts", async () => {
  here = far;
  await register({});
  nobody(1, 7);
  peer(1, 7, 0, { began: 1 }); // of the same application
  await collector.drain();
  nobody(1, 8);
  await register({ process: "q", cgroupId: 2, rules: { outside: [], inside: ["10.0.0.0/8"] } });
  await collector.drain();
  expect(told()).toEqual([]);
  expect(await peers()).toEqual({ p: undefined, q: undefined });
});

test("of several nodes nobody knows the addresses: nothing is outside by them", async () => {
  await collector.close();
  here = far;
  await start({ name: "one", all: ["one", "two"] });
  await register({});
  nobody(1, 7);
  await collector.drain();
  expect(told()).toEqual([]);
});

test("another machine that takes data of one process and gives data to another may be a relay; two services of it are none", async () => {
  here = far;
  await register({});
  await register({ process: "q", cgroupId: 2 });
  nobody(1, 7, { flags: OPEN | SINK | SOURCE, port: 5432 });
  nobody(2, 7, { flags: OPEN | SINK | SOURCE, port: 6379 });
  await collector.drain();
  expect(told().filter((text) => !text.includes("outside"))).toEqual([]);
  nobody(2, 8, { flags: SOURCE, port: 40_000 }); // a client there, which may be the first of both
  await collector.drain();
  expect(
    told()
      .filter((text) => !text.includes("outside"))
      .sort(),
  ).toEqual(["p gap", "q gap"]);
  expect(await peers()).toEqual({
    p: [{ what: "relay", peer: "10.1.2.3" }],
    q: [{ what: "relay", peer: "10.1.2.3" }],
  });
});

test("datagrams count where one has sent to a place that the other has taken from, across a restart of the collector, and not to who is outside", async () => {
  const datagram = (process: number, flags: number, { socket = 0, port = 0 }) =>
    ring.put({
      ...{ process, kind: RingKind.DATAGRAM, flags, local: socket, remote: port },
      ...{ begin: 0, time: 0xffff0000 * 2 ** 16, length: flags === SOURCE ? 0x0302010a : 0 }, // 10.1.2.3
    });
  await register({});
  await register({ process: "q", cgroupId: 2 });
  await register({ process: "r", cgroupId: 3, rules: { outside: ["10.1.0.0/16:123"], inside: [] } });
  datagram(1, SOURCE, { port: 53 });
  datagram(1, SINK, { port: 53 });
  datagram(2, SINK, { port: 54 });
  datagram(2, SINK, { socket: 53 });
  datagram(3, SOURCE, { port: 123 });
  datagram(2, SINK, { port: 123 });
  datagram(2, SOURCE | UNIX, {});
  await collector.drain();
  expect(told()).toEqual([]);
  await collector.close();
  await start();
  datagram(2, SINK, { port: 53 });
  datagram(3, SINK | UNIX, {});
  await collector.drain();
  expect(told().sort()).toEqual(["p gap", "q gap", "q gap", "r gap"]);
  expect((await peers())["q"]).toEqual([
    { what: "datagrams", peer: "p", rule: "UDP, port 53" },
    { what: "datagrams", peer: "r", rule: "AF_UNIX datagrams" },
  ]);
});

test("rules: the narrowest counts, later ones replace, contradictions and nonsense name both sides", () => {
  const rules = new PeerRules({
    outside: ["0.0.0.0/0", "[2001:db8::1]:80"],
    inside: ["10.0.0.0/8", "10.1.1.1:22"],
  });
  expect(rules.says("192.0.2.1", 5)?.side).toBe("outside");
  expect(rules.says("10.1.1.1", 23)?.rule).toBe("--inside 10.0.0.0/8");
  expect(rules.says("10.1.1.1", 22)?.rule).toBe("--inside 10.1.1.1:22");
  expect(rules.says("2001:db8::1", 80)?.side).toBe("outside");
  expect(rules.says("2001:db8::1", 81)).toBeUndefined();
  const later = rules.with({ outside: ["10.200.0.1/8"], inside: [] });
  expect(later.says("10.9.9.9", 1)?.side).toBe("outside");
  expect(new PeerRules(later.stored()).says("10.1.1.1", 22)?.side).toBe("inside");
  expect(() => new PeerRules({ outside: ["10.0.0.0/8"], inside: ["10.3.0.0/8"] })).toThrow(
    /10\.3\.0\.0\/8.*10\.0\.0\.0\/8|10\.0\.0\.0\/8.*10\.3\.0\.0\/8/,
  );
  for (const text of ["10.0.0.0/33", "name", "10.0.0.1:0", "10.0.0.1:70000", "::1/129", "", "10.0.0.0/8/8"])
    expect(() => new PeerRules({ outside: [text], inside: [] })).toThrow(/is no address range/);
});
