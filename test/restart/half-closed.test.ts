/** Connections whose one end has said that it sends no more: the other direction goes on through a restart, or the restart is refused. */
import { kill } from "node:process";
import { expect } from "vitest";
import { type Rig, until, withSharedCollector } from "../daemon/rig.ts";
import { LONG } from "../size.ts";
import { type Answer, fromNowhere } from "./answer.ts";
import { startNodePrograms } from "./node-programs.ts";
import { restartable } from "./restartable.ts";

const together = withSharedCollector("half");

/** Hears its client out, to the end of what it says, and counts for it meanwhile and afterwards, until a signal. */
const COUNTER = `const n=require("net");n.createServer({allowHalfOpen:true},c=>{let at=0;c.on("error",e=>console.log(e.code));c.on("data",d=>process.stdout.write(d));c.on("end",()=>console.log("heard out"));
const t=setInterval(()=>c.write(++at+"\\n"),4);process.on("SIGUSR2",()=>{clearInterval(t);c.end();console.log("counted",at)})}).listen(+process.argv[1],"127.0.0.1")`;

/** Says one thing, closes its half, and listens. */
const LISTENER = `const n=require("net");const c=n.connect({port:+process.argv[1],host:"127.0.0.1",allowHalfOpen:true});c.on("error",e=>console.log(e.code));c.on("data",d=>process.stdout.write(d));
c.on("end",()=>{console.log("over");setInterval(()=>{},1000)});c.end("all I have to say\\n")`;

const numbers = (rig: Rig): string[] => rig.output("listener").split("\n").filter(Boolean);

async function started(rig: Rig, ...flags: string[]): Promise<void> {
  await startNodePrograms(rig, { counter: COUNTER, listener: LISTENER }, flags);
  await until(
    "it counts, and the other half is closed",
    () => numbers(rig).length > 50 && rig.output("counter").includes("heard out"),
  );
}

function signal(rig: Rig, process: string, name: NodeJS.Signals): void {
  for (const pid of rig.cgroup(process).pids()) kill(pid, name);
}

async function exactInTheEnd(rig: Rig): Promise<void> {
  const before = numbers(rig).length;
  await until("it counts on", () => numbers(rig).length > before + 50);
  signal(rig, "counter", "SIGUSR2");
  await until("all is counted", () => rig.output("listener").includes("over"));
  const count = numbers(rig).length - 1;
  expect(numbers(rig)).toEqual([...Array.from({ length: count }, (_, at) => String(at + 1)), "over"]);
  expect(rig.output("counter")).toBe(`all I have to say\nheard out\ncounted ${count}\n`);
}

for (const dead of [["counter", "listener"], ["counter"], ["listener"]] as const)
  restartable(
    `a coordinated checkpoint of a half-closed connection, then ${dead.join(" and ")} killed: the other half goes on, exact`,
    dead.length === 2 ? {} : LONG,
    () =>
      together(`half-${dead.join("-")}`, async (rig) => {
        await started(rig);
        await rig.json("checkpoint", rig.app, "--coordinated", "--driver", "criu");
        const atCheckpoint = numbers(rig).length;
        await until("it goes on", () => numbers(rig).length > atCheckpoint + 50);
        for (const name of dead) rig.cgroup(name).kill();
        await until("it is dead", () => dead.every((name) => !rig.cgroup(name).populated));
        const answer = await rig.json<Answer>("restart", rig.app);
        expect(answer.restarted.map(({ checkpoint }) => checkpoint)).toEqual([1, 1]);
        expect(fromNowhere(answer)).toEqual([]);
        await exactInTheEnd(rig);
      }),
  );

restartable(
  "independent checkpoints of it, with payloads: what the open half had in transit comes from the payload log, exact",
  () =>
    together("half-alone", async (rig) => {
      await started(rig, "--payload");
      for (const name of ["listener", "counter"]) {
        await rig.json("checkpoint", rig.app, name, "--driver", "criu");
        const before = numbers(rig).length;
        await until("it goes on", () => numbers(rig).length > before + 50);
      }
      for (const name of ["listener", "counter"]) rig.cgroup(name).kill();
      const answer = await rig.json<Answer>("restart", rig.app, "--failed", "listener,counter");
      expect(answer.restarted.map(({ checkpoint }) => checkpoint)).toEqual([1, 1]);
      expect(answer.inTransit.at(-1)).toMatchObject({
        from: "counter",
        to: "listener",
        place: "payload log",
      });
      expect(fromNowhere(answer)).toEqual([]);
      await exactInTheEnd(rig);
    }),
);

/** Says numbers, is silent after one signal, and closes its half at another. */
const TALKER = `const c=require("net").connect({port:+process.argv[1],host:"127.0.0.1",allowHalfOpen:true});let at=0;const t=setInterval(()=>c.write(++at+"\\n"),4);process.on("SIGUSR1",()=>{clearInterval(t);console.log("silent",at)});process.on("SIGUSR2",()=>{clearInterval(t);c.end()});c.on("close",()=>setInterval(()=>{},1000))`;
const HEARER = `require("net").createServer({allowHalfOpen:true},c=>{c.on("data",d=>process.stdout.write(d));c.on("end",()=>console.log("heard out"))}).listen(+process.argv[1],"127.0.0.1")`;

restartable(
  "one image is of before the end of a half, the other of after it: refused, and --fall-back goes back to where both are of one moment, exact",
  () =>
    together("half-between", async (rig) => {
      const heard = (): string[] => rig.output("hearer").split("\n").filter(Boolean);
      const close = async (): Promise<void> => {
        signal(rig, "talker", "SIGUSR2");
        await until("its half is closed", () => rig.output("hearer").includes("heard out"));
      };
      await startNodePrograms(rig, { hearer: HEARER, talker: TALKER }, []);
      await until("it talks", () => heard().length > 50);
      await rig.json("checkpoint", rig.app, "--coordinated", "--driver", "criu");
      signal(rig, "talker", "SIGUSR1");
      const silent = (): string | undefined => /^silent (\d+)$/m.exec(rig.output("talker"))?.[1];
      await until("all that it said is heard", () => silent() !== undefined && heard().at(-1) === silent());
      await rig.json("checkpoint", rig.app, "hearer", "--driver", "criu");
      await close();
      await rig.json("checkpoint", rig.app, "talker", "--driver", "criu");
      for (const name of ["hearer", "talker"]) rig.cgroup(name).kill();
      await until("both are dead", () => !rig.cgroup("hearer").populated && !rig.cgroup("talker").populated);
      const args = ["restart", rig.app, "--failed", "hearer,talker"];
      expect(await rig.cli(...args)).toMatchObject({
        code: 4,
        err: expect.stringMatching(/talker and hearer were closing a connection .* at different moments/),
      });
      const answer = await rig.json<Answer>(...args, "--fall-back");
      expect(answer.restarted.map(({ checkpoint }) => checkpoint)).toEqual([1, 1]);
      expect(answer.passedOver).toContainEqual({ process: "talker", checkpoint: 2, why: "closing" });
      const atCheckpoint = heard().length;
      await until("it talks on", () => heard().length > atCheckpoint + 50);
      await close();
      const numbered = heard().slice(0, -1);
      expect(numbered).toEqual(numbered.map((_, at) => String(at + 1)));
    }),
);
