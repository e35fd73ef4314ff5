/** `restart --keep-survivors`: who has not received anything that is undone goes on, and only its connection breaks. */
import { expect } from "vitest";
import { type Rig, until, withSharedCollector } from "../daemon/rig.ts";
import { LONG } from "../size.ts";
import type { Answer } from "./answer.ts";
import { startNodePrograms } from "./node-programs.ts";
import { restartable } from "./restartable.ts";

const together = withSharedCollector("keep");

/** Prints what it receives and never says a word. */
const SINK = `const n=require("net");n.createServer({allowHalfOpen:true},c=>{c.on("error",()=>{});c.on("data",d=>process.stdout.write(d));c.on("end",()=>c.end())}).listen(+process.argv[1],"127.0.0.1")`;

/** Numbers, one at a time, none held back (what waits in a socket that is reset is in no payload log); each is counted once the kernel has it. Where the connection breaks, it makes a new one and goes on. */
const SOURCE = `const n=require("net");let at=1;function go(){const c=n.connect(+process.argv[1],"127.0.0.1");let over=false;
const end=()=>{if(over)return;over=true;c.destroy();console.log("again");setTimeout(go,50)};c.on("error",end);c.on("close",end);
const next=()=>{if(over)return;c.write(at+"\\n",e=>{if(e)return end();at+=1;setTimeout(next,5)})};c.on("connect",()=>{c.setNoDelay();console.log("connected");next()})}go()`;

/** The same, deaf: it leaves a connection open whose other end has closed it, and makes a new one beside it. */
const DEAF = SOURCE.replace(
  "const end=()=>{if(over)return;over=true;c.destroy();",
  "c.allowHalfOpen=true;const end=()=>{if(over)return;over=true;",
);

const numbers = (rig: Rig): number[] => rig.output("sink").split("\n").filter(Boolean).map(Number);

async function started(rig: Rig, source: string, ...flags: string[]): Promise<void> {
  await startNodePrograms(rig, { sink: SINK, source }, flags);
  await until("numbers flow", () => numbers(rig).length > 50);
  await rig.json("checkpoint", rig.app, "sink", "--driver", "criu");
  const atCheckpoint = numbers(rig).length;
  await until("it goes on", () => numbers(rig).length > atCheckpoint + 30);
}

/** Every number once: bytes of the broken connection and of the new one may come in turns. */
async function nothingLost(rig: Rig): Promise<void> {
  const before = numbers(rig).length;
  await until("numbers flow again", () => numbers(rig).length > before + 50);
  const sorted = numbers(rig).sort((a, b) => a - b);
  expect(sorted).toEqual(sorted.map((_, at) => at + 1));
}

for (const [how, source] of [
  ["that makes a new connection", SOURCE],
  ["that leaves the broken connection open", DEAF],
] as const)
  for (const alive of [false, true])
    restartable(
      `a sender ${how} goes on; its receiver comes back (${alive ? "it was alive" : "dead"}): no number lost, none twice`,
      alive === (source === DEAF) ? {} : LONG,
      () =>
        together(`keep-${alive}-${source === DEAF}`, async (rig) => {
          await started(rig, source, "--payload");
          const survivor = rig.cgroup("source").pids();
          if (!alive) {
            rig.cgroup("sink").kill();
            await until("it is dead", () => !rig.cgroup("sink").populated);
          }
          const answer = await rig.json<Answer & { breaking: { process: string; to: string }[] }>(
            ...["restart", rig.app, "--failed", "sink", "--keep-survivors"],
          );
          expect(answer.restarted).toEqual([{ process: "sink", action: "restore", checkpoint: 1 }]);
          expect(answer.breaking).toEqual([{ process: "source", to: "sink" }]);
          expect(answer.inTransit).toMatchObject([{ from: "source", to: "sink", place: "payload log" }]);
          expect(rig.cgroup("source").pids()).toEqual(survivor);
          await nothingLost(rig);
          expect(rig.output("source").match(/again/g)?.length).toBeGreaterThan(0);
        }),
    );

restartable(
  "without a payload log what the survivor has sent is nowhere: refused, and nobody was touched",
  () =>
    together("keep-refused", async (rig) => {
      await started(rig, SOURCE);
      const pids = ["sink", "source"].map((name) => rig.cgroup(name).pids());
      const { code, err } = await rig.cli("restart", rig.app, "--failed", "sink", "--keep-survivors");
      expect([code, err]).toEqual([4, expect.stringContaining("can't be replayed")]);
      expect(["sink", "source"].map((name) => rig.cgroup(name).pids())).toEqual(pids);
      const before = numbers(rig).length;
      await until("both go on", () => numbers(rig).length > before + 50);
    }),
);
