/** What keeps connections from hearing anything when their processes die: a restart is not held up, and what comes back hears. */
import { execFileSync, spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { expect } from "vitest";
import { openConnections } from "../../src/host/open-connections.ts";
import { type Rig, until, withSharedCollector } from "../daemon/rig.ts";
import type { Answer } from "./answer.ts";
import { startNodePrograms } from "./node-programs.ts";
import { restartable } from "./restartable.ts";

const together = withSharedCollector("blocked");

/** Counts for whoever connects; of a large one the image takes a while. */
const counter = (bytes: number): string =>
  `const n=require("net"),big=Buffer.alloc(${bytes},1);n.createServer(c=>{let at=0;c.on("error",()=>{});setInterval(()=>c.write(++at+"\\n"),4).unref()}).listen(+process.argv[1],"127.0.0.1")`;
const LISTENER = `require("net").connect(+process.argv[1],"127.0.0.1").on("error",e=>console.log(e.code)).on("data",d=>process.stdout.write(d))`;

const numbers = (rig: Rig): string[] => rig.output("listener").split("\n").slice(0, -1);

async function counting(rig: Rig): Promise<void> {
  const before = numbers(rig).length;
  await until("it counts", () => numbers(rig).length > before + 20);
}

async function checkpointed(rig: Rig, bytes = 1): Promise<void> {
  await startNodePrograms(rig, { counter: counter(bytes), listener: LISTENER }, []);
  await counting(rig);
  await rig.json("checkpoint", rig.app, "--coordinated", "--driver", "criu");
}

async function comesBack(rig: Rig): Promise<void> {
  await until("it is told dead", async () => !rig.cgroup("counter").populated);
  const answer = await rig.json<Answer>("restart", rig.app, "--failed", "counter,listener");
  expect(answer.restarted.map(({ checkpoint }) => checkpoint)).toEqual([1, 1]);
}

async function exact(rig: Rig): Promise<void> {
  await counting(rig);
  const said = numbers(rig);
  expect(said).toEqual(said.map((_, at) => String(at + 1)));
}

/** CRIU's tables that name the port; others' CRIUs work beside us. */
function tablesOf(port: number): string[] {
  const listed = execFileSync("nft", ["list", "ruleset", "inet"], { encoding: "utf8" });
  const tables = listed.split(/^(?=table )/m).filter((text) => new RegExp(` ${port}\\b`).test(text));
  return tables.flatMap((text) => /^table inet (CRIU-\S+)/.exec(text)?.slice(1) ?? []);
}

/** The CRIU that dumps `pid`, stopped while it blocks `port`: it works on a little at a time, and stands still at each look. */
async function stoppedInDump(pid: number, port: number): Promise<number> {
  let criuPid = 0;
  await until("CRIU has blocked it", () => {
    criuPid = Number(/^TracerPid:\s*(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))![1]);
    if (criuPid === 0) return false;
    process.kill(criuPid, "SIGSTOP");
    const blocks = tablesOf(port).length > 0;
    if (!blocks) process.kill(criuPid, "SIGCONT");
    return blocks;
  });
  return criuPid;
}

const portOf = (rig: Rig): number => openConnections(rig.cgroup("listener").pids())[0]!.remote.port;

/** Drops what goes through the application's connection, as a CRIU that was killed leaves it; returns what lets it through again. */
function block(rig: Rig, table: string): () => void {
  const [connection] = openConnections(rig.cgroup("listener").pids());
  const { local, remote } = connection!;
  const ends = [local, remote].map(({ address, port }) => `${address} . ${port}`);
  const both = [ends.join(" . "), ends.toReversed().join(" . ")].join(", ");
  const set = `set conns4 { type ipv4_addr . inet_service . ipv4_addr . inet_service; elements = { ${both} }; }`;
  const rule = "ip saddr . tcp sport . ip daddr . tcp dport @conns4 drop";
  const chain = `chain input { type filter hook input priority filter; ${rule}; }`;
  execFileSync("nft", ["-f", "-"], { input: `table inet ${table} { ${set}; ${chain}; }\n` });
  return () => spawnSync("nft", ["delete", "table", "inet", table], { stdio: "ignore" });
}

restartable("killed while CRIU dumps it: nothing stays blocked, and the restart goes through", () =>
  together("blocked-dump", async (rig) => {
    await checkpointed(rig, 2e8);
    const port = portOf(rig);
    const { ended } = rig.background("checkpoint", rig.app, "counter", "--driver", "criu");
    const criuPid = await stoppedInDump(rig.cgroup("counter").pids()[0]!, port);
    rig.cgroup("counter").kill();
    process.kill(criuPid, "SIGCONT");
    expect((await ended).code).not.toBe(0);
    expect(tablesOf(port)).toEqual([]);
    await comesBack(rig);
    await exact(rig);
  }),
);

restartable("a CRIU that was killed left it blocked: it is let through before it comes back", () =>
  together("blocked-left", async (rig) => {
    await checkpointed(rig);
    const port = portOf(rig);
    const unblock = block(rig, "CRIU-left-by-a-dead-one");
    try {
      for (const name of ["counter", "listener"]) rig.cgroup(name).kill();
      await comesBack(rig);
      await exact(rig);
      expect(tablesOf(port)).toEqual([]);
    } finally {
      unblock();
    }
  }),
);

restartable("ends that can't tell each other that they close are ended, and don't hold up the restart", () =>
  together("blocked-ends", async (rig) => {
    await checkpointed(rig);
    const unblock = block(rig, "somebody-elses");
    try {
      for (const name of ["counter", "listener"]) rig.cgroup(name).kill();
      await comesBack(rig);
    } finally {
      unblock();
    }
    await exact(rig);
  }),
);
